"""What only the model card says: what the model is for, how it came to be, and what its evidence does not cover."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.quantize.config import is_integer
from compress.report import facts, provenance, wording
from compress.report.reference import reference
from compress.report.refits import refit_note
from compress.report.schema import Report, Variant

_FEW_ITEMS = 50  # of a class: below this its recall is known to +-10 points at best
_NAMES_SHOWN = 30
_PIPELINES = {"image": "image-classification", "text": "text-classification"}


@dataclass(frozen=True)
class Card:
    pipeline: str
    metrics: list[tuple[str, float]]  # Hugging Face's name of the metric, and its value
    use: str
    labels: str
    lineage: str
    preprocessing: list[tuple[str, str]]
    limitations: list[str]
    licence: str


def card(report: Report) -> Card:
    variant = facts.chosen(report)
    measured = [("accuracy", variant.accuracy), ("f1", variant.macro_f1)] if variant else []
    items = {"image": "an image", "text": "a text"}.get(report.task, "an item")
    return Card(
        pipeline=_PIPELINES.get(report.task, ""),
        metrics=[(name, round(value, 6)) for name, value in measured if math.isfinite(value)],
        use=f"Gives {items} one of {len(report.data.labels)} labels, with a score for each.",
        labels=_labels(report),
        lineage=f"{_lineage(report, variant)} {refit_note(report)}".rstrip(),
        preprocessing=provenance.preprocessing_facts(report),
        limitations=_limitations(report, variant),
        licence=_licence(report),
    )


def _labels(report: Report) -> str:
    names = provenance.class_names(report)
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _lineage(report: Report, variant: Variant | None) -> str:
    base = facts.baseline(report)
    if variant is None or variant.id == base.id:
        return f"The baseline is {base.id}, {wording.whole(base.params)} parameters."
    made = {"student": "Distilled", "control": "Trained without the teacher", "teacher": "Exported"}[variant.role]
    parents = f" Made from {', '.join(variant.parents)}." if variant.parents else ""
    package = f" Its package has the id {variant.package_id}." if variant.package_id else ""
    return (
        f"{made}; {wording.whole(variant.params)} parameters, {variant.precision}, {wording.size(variant.size_bytes)}."
        f"{parents}{package} The baseline it is compared with is {base.id}, {wording.whole(base.params)} parameters."
    )


def _licence(report: Report) -> str:
    stated = report.teacher_licence
    if not stated:
        return "The licence of the teacher is not known to this run. Find it out before you pass this model on."
    return f"The teacher's source states the licence {stated}. What follows for this model is for you to judge."


def _limitations(report: Report, variant: Variant | None) -> list[str]:
    n = wording.plural(facts.baseline(report).n, "item")
    machine = ", ".join(str(report.run.hardware[key]) for key in ("cpu", "gpu") if report.run.hardware.get(key))
    found = [
        f"All rates were measured on one test split of {n} from {report.data.source}. On other data they will differ.",
        f"The intervals cover the choice of test items, not training again with another seed than {report.run.seed}.",
        f"Latency was measured on one machine{f' ({machine})' if machine else ''}. On another, measure again.",
        "Every input gets one of the labels, also one that belongs to none of them.",
        "The test labels were taken as true, and where the teacher was wrong the student was taught to be wrong.",
    ]
    if report.task == "text" and (most := (report.preprocessing or {}).get("max_length")):
        tokens = wording.plural(most, "token")
        found.append(f"It reads {tokens} of a text at most; a longer one is cut, and its prediction says `truncated`.")
    if judged := reference(report).limitation:
        found.append(judged)
    return found if variant is None else [*found, *_own_limitations(variant)]


def _own_limitations(variant: Variant) -> list[str]:
    found = []
    few = sum(score.n < _FEW_ITEMS for score in variant.per_class)
    if few:
        found.append(f"{few} of {len(variant.per_class)} classes have fewer than {_FEW_ITEMS} test items.")
    if is_integer(variant.precision):
        found.append("8-bit arithmetic may give other answers, and be slower, on a processor without VNNI.")
    if not variant.batch_invariant:
        found.append("Its answers depend on what shares the batch, so it is served one item at a time.")
    promise = variant.abstention
    if promise is not None and promise.below and promise.coverage is not None:
        right = wording.percent(promise.test_precision)
        found.append(
            f"A prediction that scores below {wording.fixed(promise.below, 4)} says `abstained`; of the test items "
            f"{wording.percent(promise.coverage)} score more, and {right} of these are right."
        )
    groups = [one for one in variant.audit.groups if one.judged] if variant.audit else []
    if groups and groups[0].drop_points > 0:
        worst = groups[0]
        found.append(
            f"The group that loses most is “{wording.short(worst.group, 40)}”: {wording.points(worst.drop_points)} "
            f"(95 % interval {wording.interval(*worst.drop_points_ci95)}, {wording.plural(worst.n, 'test item')})."
        )
    if math.isfinite(variant.ece):
        found.append(f"Its scores are off by {wording.percent(variant.ece)} on average (calibration error, 15 bins).")
    return found
