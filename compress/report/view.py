"""Everything the templates show, ready to be written out: no template computes or formats anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.report import audit, classes, evidence, facts, fronts, provenance, quantization, svg, wording
from compress.report.charts import Drop, drops, learning
from compress.report.distributions import distributions
from compress.report.gallery import Gallery, gallery
from compress.report.loads import Load, load_curve, split_table
from compress.report.reference import Reference, reference
from compress.report.refits import refit_note
from compress.report.reliability import calibration
from compress.report.schema import Report
from compress.report.tables import Table
from compress.report.verdict import Verdict, constraints_table, verdict
from compress.report.waterfall import waterfall


@dataclass(frozen=True)
class Chart:
    """The same drawing for wide and for narrow pages; the stylesheet shows one of them."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class View:
    name: str
    task: str
    byline: tuple[str, ...]
    verdict: Verdict
    baseline: str
    reference: Reference
    constraints: Table | None
    limits: Table | None  # those constraints that the recipe sets
    waterfall: Chart | None
    variants: Table
    summary: Table
    pareto: Chart | None
    pareto_size: Chart | None
    pareto_rate: Chart | None
    objective: str  # of its rates
    drops: Chart | None
    controls: Table | None
    other_controls: list[str]
    confusions: list[Table]
    is_matrix: bool
    by_class: Table
    worst_class: str
    audit: Table | None
    calibration: Markup | None
    reliability: Table | None
    promises: Table | None
    gallery: Gallery | None
    exemplars: Table | None
    groups: Table | None
    loads: list[tuple[str, Chart | None, Table | None]]  # what was found, how, and where the time went
    latencies: Chart | None
    latency: Table | None
    parity: Table
    quantization: list[str]
    tried: list[Table]
    ranking: Table | None
    choice_reason: str
    choice_method: str
    refits: str  # which models were trained a second time; empty where none was
    advice: list[str]
    curves: list[tuple[str, Markup, list[str]]]  # model, chart, what else is to know of how it was trained
    source: str
    splits: Table
    data_notes: list[str]
    class_names: list[str]
    run_facts: list[tuple[str, str]]
    measured_on: str
    command: str
    serve_command: str
    load_command: str  # empty where fewer than two packages could be tested under load
    stages: Table | None


def view(report: Report, loads: Sequence[Load] = ()) -> View:
    """`loads` are the load tests of the run's packages."""
    return View(
        name=wording.short(report.run.name, 80),
        task=report.task,
        byline=_byline(report),
        verdict=verdict(report),
        baseline=report.baseline,
        reference=reference(report),
        constraints=constraints_table(report),
        limits=constraints_table(report, only_set=True),
        waterfall=_chart(waterfall(report), waterfall(report, svg.NARROW)),
        variants=evidence.variants_table(report),
        summary=evidence.summary_table(report),
        pareto=_chart(fronts.by_latency(report), fronts.by_latency(report, svg.NARROW)),
        pareto_rate=_chart(fronts.by_rate(report, loads), fronts.by_rate(report, loads, svg.NARROW)),
        objective=fronts.shared_objective(loads),
        pareto_size=_chart(fronts.by_size(report), fronts.by_size(report, svg.NARROW)),
        drops=_drops(report),
        controls=evidence.controls_table(report),
        other_controls=evidence.other_controls(report),
        confusions=classes.confusion_tables(report),
        is_matrix=len(report.data.labels) <= classes.MATRIX_CLASSES,
        by_class=classes.class_table(report),
        worst_class=classes.worst_class(report),
        audit=audit.audit_table(report),
        calibration=calibration(report),
        reliability=audit.reliability_table(report),
        promises=audit.promise_table(report),
        gallery=gallery(report),
        exemplars=audit.exemplar_table(report),
        groups=audit.group_table(report),
        loads=[(one.title, _chart(load_curve(one), load_curve(one, svg.NARROW)), split_table(one)) for one in loads],
        latencies=_chart(distributions(report), distributions(report, svg.NARROW)),
        latency=evidence.latency_table(report),
        parity=evidence.parity_table(report),
        quantization=quantization.quantization_notes(report),
        tried=quantization.tried_tables(report),
        ranking=evidence.ranking_table(report),
        choice_reason=report.choice.reason,
        choice_method=_choice_method(report),
        refits=refit_note(report),
        advice=report.advice,
        curves=_curves(report),
        source=report.data.source,
        splits=provenance.splits_table(report),
        data_notes=provenance.data_notes(report),
        class_names=provenance.class_names(report),
        run_facts=provenance.run_facts(report),
        measured_on=provenance.measured_on(report),
        command=provenance.command(report),
        serve_command=provenance.serve_command(report),
        load_command=provenance.load_command(report),
        stages=provenance.stages_table(report),
    )


def _byline(report: Report) -> tuple[str, ...]:
    size = wording.plural(facts.baseline(report).n, "test item")
    count = wording.plural(len(report.data.labels), "class").replace("classs", "classes")
    return (report.run.name, wording.moment(report.run.created), f"{report.data.source}, {count}, {size}")


def _drops(report: Report) -> Chart | None:
    words, margin = reference(report), report.constraints.max_drop_points
    rows = [
        Drop(
            variant.id,
            variant.metric_drop_points,
            *variant.metric_drop_points_ci95,
            role=variant.role,
            marks=tuple(facts.marks(report, variant)),
        )
        for variant in facts.compared(report)
    ]
    return _chart(*(drops(rows, margin, words.what, width, words.brief) for width in (svg.WIDE, svg.NARROW)))


def _chart(wide: Markup | None, narrow: Markup | None) -> Chart | None:
    return Chart(wide, narrow) if wide is not None and narrow is not None else None


def _curves(report: Report) -> list[tuple[str, Markup, list[str]]]:
    drawn = [
        (name, learning(name, epochs, f"learning-{at}")) for at, (name, epochs) in enumerate(report.training.items())
    ]
    notes = report.training_notes
    return [(wording.short(name, 60), chart, notes.get(name, [])) for name, chart in drawn if chart is not None]


def _choice_method(report: Report) -> str:
    """When the choice was made: honest even where that is unwelcome."""
    if report.choice.after_test:
        return (
            "The candidates were ranked on validation alone, but the test split had been scored in this folder before "
            "this choice was made: the recipe was changed after a first run. Take the verdict with that in mind, or "
            "run the recipe in a new folder on a new test split."
        )
    return (
        "The candidates were ranked on validation and the choice was frozen there. Only then was the test split looked "
        "at, once. Had the choice failed on test, no luckier variant would have taken its place."
    )
