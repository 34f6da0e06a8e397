"""What only the model card says: what the model is for, how it came to be, what it costs, whose it is.

The sections are those of Hugging Face's template. What a run cannot know, the recipe's [card] may say; what nobody
says, the card calls not stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from compress.report import facts, provenance, wording
from compress.report.limitations import limitations
from compress.report.refits import refit_note
from compress.report.schema import Epoch, Report, Variant
from compress.report.tables import Column, Table, row, table
from compress.report.waterfall import path

_NAMES_SHOWN = 30
_PIPELINES = {"image": "image-classification", "text": "text-classification"}
_ASKS = {
    "image": "curl -X POST http://127.0.0.1:3000/classify -H 'Content-Type: image/png' --data-binary @image.png",
    "text": "curl -X POST http://127.0.0.1:3000/classify -H 'Content-Type: application/json' "
    """-d '{"inputs": ["a text"]}'""",
}


@dataclass(frozen=True)
class Card:
    pipeline: str
    metrics: list[tuple[str, float]]  # Hugging Face's name of the metric, and its value
    use: str
    labels: str
    uses: list[tuple[str, str]]  # what it is meant for, and what not
    ask: str  # a request, as a shell command
    lineage: str
    models: Table | None  # what the choice and its teacher began as, and how they were trained
    path: Table | None
    preprocessing: list[tuple[str, str]]
    figures: Table | None
    limitations: list[str]
    cost: list[str]
    licences: list[tuple[str, str]]
    contact: str


def card(report: Report) -> Card:
    variant = facts.chosen(report)
    measured = [("accuracy", variant.accuracy), ("f1", variant.macro_f1)] if variant else []
    items = {"image": "an image", "text": "a text"}.get(report.task, "an item")
    return Card(
        pipeline=_PIPELINES.get(report.task, ""),
        metrics=[(name, round(value, 6)) for name, value in measured if math.isfinite(value)],
        use=f"Gives {items} one of {len(report.data.labels)} labels, with a score for each.",
        labels=_labels(report),
        uses=[("Meant for", _stated(report, "use")), ("Not meant for", _stated(report, "not_for"))],
        ask=_ASKS.get(report.task, ""),
        lineage=f"{_lineage(report, variant)} {refit_note(report)}".rstrip(),
        models=_models(report),
        path=_path(report),
        preprocessing=provenance.preprocessing_facts(report),
        figures=_figures(report, variant),
        limitations=limitations(report, variant),
        cost=_cost(report),
        licences=_licences(report),
        contact=_stated(report, "contact"),
    )


def _stated(report: Report, name: str) -> str:
    """What the recipe's [card] says, or that it says nothing."""
    return report.card.get(name) or f"not stated (“{name}” under [card] in the recipe)"


def _labels(report: Report) -> str:
    names = provenance.class_names(report)
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _lineage(report: Report, variant: Variant | None) -> str:
    base = facts.baseline(report)
    if variant is None or variant.id == base.id:
        return f"The baseline is {base.id}, {wording.whole(base.params)} parameters."
    made = {"student": "Distilled", "control": "Trained without the teacher", "teacher": "Exported"}[variant.role]
    package = f" Its package has the id {variant.package_id}." if variant.package_id else ""
    return (
        f"{made}; {wording.whole(variant.params)} parameters, {variant.precision}, {wording.size(variant.size_bytes)}."
        f"{package} The baseline it is compared with is {base.id}, {wording.whole(base.params)} parameters."
    )


def _path(report: Report) -> Table | None:
    """From the baseline to the choice, a step a row; None where there is no step."""
    steps = path(report)
    if len(steps) < 2:
        return None
    rows = [
        row(
            step.variant.id,
            step.done,
            wording.whole(step.variant.params),
            wording.size(step.variant.size_bytes),
            f"{wording.whole(step.variant.errors)} of {wording.whole(step.variant.n)}",
        )
        for step in steps
    ]
    made = Column("What was done", numeric=False)
    return table("From the baseline to the choice", ["Step", made, "Parameters", "Size", "Errors on test"], rows)


def _models(report: Report) -> Table | None:
    """The models on that path, as they were trained; None where nothing is known of it."""
    names = [name for name in dict.fromkeys(step.variant.name for step in path(report)) if name in report.training]
    if not names:
        return None
    rows = []
    for name in names:
        origin, epochs = report.origins.get(name), report.training[name]
        rows.append(
            row(name, "not recorded" if origin is None else _began(origin.model, origin.fresh), *_spent(epochs))
        )
    began = Column("Began as", numeric=False)
    return table("How its models were trained", ["Model", began, "Epochs", "Best on validation, %", "Took"], rows)


def _began(model: str, fresh: bool) -> str:
    return f"{model}, from random weights" if fresh else model


def _spent(epochs: list[Epoch]) -> tuple[str, str, str]:
    if not epochs:
        return ("0", "—", "—")
    best = max(epochs, key=lambda epoch: epoch.accuracy)
    took = wording.duration(sum(epoch.seconds for epoch in epochs))
    return (wording.whole(len(epochs)), f"{wording.percent(best.accuracy, unit=False)} (epoch {best.epoch})", took)


def _figures(report: Report, variant: Variant | None) -> Table | None:
    """The choice beside its baseline; None where nothing could be chosen."""
    base = facts.baseline(report)
    if variant is None:
        return None
    shown = [variant] if variant.id == base.id else [variant, base]
    rows = [row(name, *(figure(one) for one in shown)) for name, figure in _FIGURES]
    if variant.id != base.id:
        rows.append(row("Agreement with the baseline, %", wording.percent(variant.agreement, unit=False), "—"))
    return table("On the test split", ["", *(one.id for one in shown)], rows)


def _interval(variant: Variant) -> str:
    return f"{wording.percent(variant.accuracy, unit=False)} ({wording.percent_interval(variant.accuracy_ci95)})"


_FIGURES: tuple[tuple[str, Callable[[Variant], str]], ...] = (
    ("Accuracy, % (95 % interval)", _interval),
    ("Macro F1, %", lambda one: wording.percent(one.macro_f1, unit=False)),
    ("Macro precision, %", lambda one: wording.percent(one.macro_precision, unit=False)),
    ("Macro recall, %", lambda one: wording.percent(one.macro_recall, unit=False)),
    ("Calibration error (ECE, 15 bins), %", lambda one: wording.percent(one.ece, unit=False)),
    ("Latency p50, batch 1, 1 thread", lambda one: wording.milliseconds(facts.median(one))),
    ("Latency p95", lambda one: wording.milliseconds(facts.tail(one))),
    ("Peak memory", lambda one: wording.size(1e6 * one.peak_rss_mb)),
)


def _cost(report: Report) -> list[str]:
    """Time, machine, and what was not measured of the rest."""
    took, where = provenance.time_taken(report), provenance.machine(report)
    return [
        f"Time of the whole run, controls and measurements included: {took or 'not recorded'}",
        f"Machine: {where or 'not recorded'}",
        "Energy and emissions: not measured",
    ]


def _licences(report: Report) -> list[tuple[str, str]]:
    """Of the teacher, of the data, and of what comes out."""
    return [
        ("Teacher", _of_teacher(report)),
        ("Data", _stated(report, "data_licence")),
        ("This model", _stated(report, "licence")),
    ]


def _of_teacher(report: Report) -> str:
    origin = report.origins.get(facts.baseline(report).name)
    if report.teacher_licence:
        named = f"{origin.model}, its" if origin else "Its"
        return f"{named} source states {report.teacher_licence}"
    if origin is not None and origin.fresh:
        return f"{origin.model}, trained from random weights in this run: no licence of others on its weights"
    named = f" of {origin.model}" if origin else ""
    return f"the licence of the teacher is not known to this run; find out that{named} before you pass this model on"
