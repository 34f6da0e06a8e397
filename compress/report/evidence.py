"""The tables of evidence: variants, students against controls, latency, parity and the ranking on validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.report import facts, wording
from compress.report.reference import reference
from compress.report.schema import Candidate, Report, Variant
from compress.report.tables import Cell, Column, Group, Row, Table, Tone, as_columns, row, table

ALONE = "-alone"  # a student's control is called after it, with this at the end
_FACTS_SHOWN = 14  # of what an export or quantizer did to a graph


def variants_table(report: Report) -> Table:
    columns: list[str | Column] = [
        "Variant",
        "Errors",
        "Accuracy, %",
        _drop_title(report),
        "Flips −/+",
        "Agree, %",
        "McNemar p",
        "p50, ms",
        "p95, ms",
        "Speed-up",
        "Size",
        "Peak RSS",
    ]
    n = wording.plural(facts.baseline(report).n, "test item")
    caption = f"All variants over {n}. 95 % intervals beneath; latency from bytes to label, batch 1, 1 thread."
    return table(caption, columns, [_variant_row(report, variant) for variant in report.variants], kind="variants")


def _drop_title(report: Report) -> str:
    """The drop of the tables is from the baseline; where a target is judged, that must be said."""
    return "Drop, points" if report.constraints.target_percent is None else "Drop from baseline, points"


def _variant_row(report: Report, variant: Variant) -> Row:
    is_baseline = variant.id == report.baseline
    none = Cell("—", tone="quiet")
    drop = Cell(
        wording.fixed(variant.accuracy_drop_points), wording.interval(*variant.accuracy_drop_points_ci95, digits=1)
    )
    cells = (
        Cell(variant.id, f"{variant.role}, {variant.precision}"),
        Cell(wording.whole(variant.errors)),
        Cell(
            wording.percent(variant.accuracy, unit=False),
            " to ".join(wording.percent(end, 1, unit=False) for end in variant.accuracy_ci95),
        ),
        none if is_baseline else drop,
        none if is_baseline else Cell(f"{wording.whole(variant.flips.lost)} / {wording.whole(variant.flips.gained)}"),
        none if is_baseline else Cell(wording.percent(variant.agreement, unit=False)),
        none if is_baseline else Cell(wording.p_value(variant.mcnemar_p)),
        Cell(wording.significant(facts.median(variant))),
        Cell(wording.significant(facts.tail(variant))),
        Cell(wording.ratio(variant.speedup if facts.single(variant) else None)),
        Cell(wording.size(variant.size_bytes)),
        Cell(wording.size(1e6 * variant.peak_rss_mb)),
    )
    return Row(cells, tuple(facts.marks(report, variant)), _outcome(report, variant))


def _outcome(report: Report, variant: Variant) -> Cell:
    """The verdict on a variant, and why it was rejected."""
    if variant.id == report.baseline:
        return Cell("baseline", "what the others are compared with", tone="quiet")
    if variant.verdict == "accepted":
        return Cell("✓ accepted", tone="good")
    return Cell("✕ rejected", "; ".join(facts.reasons(report, variant)) or "no reason recorded", tone="bad")


def _brief_outcome(report: Report, variant: Variant) -> Cell:
    """The same, where a table beside it has the limits: only which of them it breaks."""
    whole = _outcome(report, variant)
    broken = facts.failed(facts.checks(report, variant))
    if not whole.text.startswith("✕") or not broken or len(broken) != len(facts.reasons(report, variant)):
        return whole if whole.text.startswith("✕") else Cell(whole.text)
    return Cell(f"✕ rejected: {', '.join(check.brief for check in broken)}", tone="bad")


def summary_table(report: Report) -> Table:
    """The variants in a few columns, for a pull request or a model card."""
    verdict = Column("Verdict", numeric=False)
    columns: list[str | Column] = [
        "Variant",
        "Errors",
        *([] if report.constraints.target_percent is None else [_reached_title(report)]),
        f"{_drop_title(report)} (95 %)",
        "Flips −/+",
        "p50, ms",
        "Speed-up",
        "Size",
        verdict,
    ]
    rows = [_summary_row(report, variant) for variant in report.variants]
    return table("Every variant on the test split", columns, rows)


def _summary_row(report: Report, variant: Variant) -> Row:
    is_baseline = variant.id == report.baseline
    drop = f"{wording.fixed(variant.accuracy_drop_points)} ({wording.interval(*variant.accuracy_drop_points_ci95)})"
    return row(
        variant.id,
        f"{wording.whole(variant.errors)} of {wording.whole(variant.n)}",
        *_reached(report, variant),
        "—" if is_baseline else drop,
        "—" if is_baseline else f"{wording.whole(variant.flips.lost)} / {wording.whole(variant.flips.gained)}",
        wording.significant(facts.median(variant)),
        wording.ratio(variant.speedup if facts.single(variant) else None),
        wording.size(variant.size_bytes),
        _brief_outcome(report, variant),
        marks=facts.marks(report, variant),
    )


def _reached_title(report: Report) -> str:
    return f"{wording.capital(facts.metric_name(report.constraints.metric))}, % (95 %)"


def _reached(report: Report, variant: Variant) -> list[str]:
    """The judged metric itself, where it is held against a target."""
    target = report.constraints.target_percent
    if target is None:
        return []
    low, high = (target - limit for limit in reversed(variant.metric_drop_points_ci95))
    return [f"{wording.fixed(target - variant.metric_drop_points)} ({wording.interval(low, high)})"]


def controls_table(report: Report) -> Table | None:
    """Each student beside the same network trained without the teacher; None where no student has such a control."""
    rows = [_control_row(student, control) for student, control in control_pairs(report)]
    if not rows:
        return None
    columns: list[str | Column] = [
        "Student",
        "Errors, distilled",
        "Errors, alone",
        "Errors saved",
        "Accuracy, %",
        "Alone, %",
    ]
    return table("The same network and precision, with and without the teacher", columns, rows)


def control_pairs(report: Report) -> Iterator[tuple[Variant, Variant]]:
    """(student, control) of the same precision and runtime."""
    controls = {
        (variant.name, variant.precision, variant.runtime): variant
        for variant in report.variants
        if variant.role == "control"
    }
    for variant in report.variants:
        control = controls.get((variant.name + ALONE, variant.precision, variant.runtime))
        if variant.role == "student" and control is not None:
            yield variant, control


def _control_row(student: Variant, control: Variant) -> Row:
    saved = control.errors - student.errors
    tone: Tone = "good" if saved > 0 else "bad" if saved < 0 else ""
    return row(
        Cell(student.id, f"against {control.id}"),
        wording.whole(student.errors),
        wording.whole(control.errors),
        Cell(wording.signed(saved, 0), tone=tone),
        wording.percent(student.accuracy, unit=False),
        wording.percent(control.accuracy, unit=False),
    )


def other_controls(report: Report) -> list[str]:
    """Controls that stand for themselves (a stock small model), a phrase each."""
    paired = {control.id for _, control in control_pairs(report)}
    return [
        f"{variant.id}: {wording.plural(variant.errors, 'error')}, {wording.percent(variant.accuracy)}"
        for variant in report.variants
        if variant.role == "control" and variant.id not in paired
    ]


def latency_table(report: Report) -> Table | None:
    """Every measured setting, grouped by batch size and threads; None where nothing was measured."""
    settings = sorted({(at.batch, at.threads) for variant in report.variants for at in variant.latency_ms})
    groups = tuple(
        Group(
            f"batch {batch}, {wording.plural(threads, 'thread')}",
            tuple(_latency_rows(report, batch, threads)),
        )
        for batch, threads in settings
    )
    columns = as_columns(["Variant", "p50", "p95", "p99", "Model alone, p50", "Items per second", "Calls timed"])
    caption = "Milliseconds for one call, from request bytes to labels"
    return Table(caption, columns, groups, kind="dense") if groups else None


def _latency_rows(report: Report, batch: int, threads: int) -> Iterator[Row]:
    for variant in report.variants:
        for at in variant.latency_ms:
            if (at.batch, at.threads) != (batch, threads):
                continue
            yield row(
                variant.id,
                wording.significant(at.total_p50),
                wording.significant(at.total_p95),
                wording.significant(at.total_p99),
                wording.significant(at.compute_p50),
                wording.significant(facts.quotient(1000 * at.batch, at.total_p50)),
                wording.whole(at.n),
                marks=facts.marks(report, variant),
            )


def parity_table(report: Report) -> Table:
    text = Column("What was done to the graph", numeric=False)
    compared = Column("Compared with", numeric=False)
    batch = Column("Answers depend on the batch", numeric=False)
    columns: list[str | Column] = [
        "Variant",
        compared,
        "Largest difference of scores",
        "Labels that differ",
        batch,
        text,
    ]
    rows = [_parity_row(variant) for variant in report.variants]
    return table("Every export and quantization against what it was made from", columns, rows)


def _parity_row(variant: Variant) -> Row:
    parity = variant.parity
    against = Cell("not made from another", tone="quiet")
    if parity is not None:
        against = Cell(parity.against, wording.plural(parity.n, f"{parity.split}{wording.NBSP}item"))
    return row(
        variant.id,
        against,
        wording.difference(parity.max_abs) if parity else wording.MISSING,
        f"{wording.whole(parity.disagreements)} of {wording.whole(parity.n)}" if parity else wording.MISSING,
        Cell("no") if variant.batch_invariant else Cell("yes, so served one by one"),
        Cell(graph_facts(variant.graph) or "—"),
    )


def graph_facts(graph: dict[str, Any]) -> str:
    """What the export or quantizer did, counted in the graph itself, as `name value` phrases."""
    found = list(_flat(graph))
    rest = len(found) - _FACTS_SHOWN
    return ", ".join(found[:_FACTS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _flat(graph: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in graph.items():
        title = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(value, f"{title} ")
        elif isinstance(value, list | tuple):
            yield f"{title} {' '.join(str(item) for item in value) or 'none'}"
        elif isinstance(value, bool):
            yield f"{title} {'yes' if value else 'no'}"
        elif isinstance(value, float):
            yield f"{title} {wording.significant(value)}"
        elif isinstance(value, int):
            yield f"{title} {wording.whole(value)}"
        else:
            yield f"{title} {'none' if value is None else value}"


def ranking_table(report: Report) -> Table | None:
    """The candidates as they stood on validation; None where there were none."""
    why = Column("Why", numeric=False)
    columns: list[str | Column] = [
        "Candidate",
        f"{reference(report).brief}, points",
        "Upper limit",
        "p50, ms",
        "p95, ms",
        "Size",
        why,
    ]
    rows = [_ranking_row(report, candidate) for candidate in report.choice.ranking]
    return table("The candidates on the validation split, as they were ranked", columns, rows) if rows else None


def _ranking_row(report: Report, candidate: Candidate) -> Row:
    return row(
        Cell(candidate.id, "✓ eligible" if candidate.eligible else "✕ not eligible"),
        wording.fixed(candidate.drop_points),
        wording.fixed(candidate.drop_points_upper),
        wording.significant(candidate.total_p50_ms),
        wording.significant(candidate.total_p95_ms),
        wording.size(candidate.size_bytes),
        candidate.why,
        marks=["choice"] if candidate.id == report.choice.id else [],
    )
