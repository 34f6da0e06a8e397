"""The compression audit as tables: what the accuracy of each variant hides."""

from __future__ import annotations

from compress.report import classes, facts, wording
from compress.report.schema import Abstention, Audit, Flips, GroupChange, Report, Variant
from compress.report.tables import Cell, Column, Row, Table, Tone, row, table

_GROUPS_SHOWN = 20
_FEW = 30  # items, below which a share is not worth a colour
SURE = 0.05  # a corrected p-value below it is no chance


def audit_table(report: Report) -> Table | None:
    """Flips to baseline and parent, the class that lost most, the shift of calibration; None without audits."""
    audited = [(variant, variant.audit) for variant in report.variants if variant.audit is not None]
    if not audited:
        return None
    softened = any(variant.temperature != 1 for variant, _ in audited)
    columns: list[str | Column] = [
        "Variant",
        "Flips −/+, baseline",
        "Flips −/+, parent",
        "Worst class, points",
        "Calibration error, %",
        "Change, points",
        *(["Temperature"] if softened else []),
    ]
    rows = [_audit_row(report, variant, found, softened) for variant, found in audited]
    caption = "What each variant answers otherwise, who pays for it, and how far its scores can be believed"
    return table(caption, columns, rows)


def _audit_row(report: Report, variant: Variant, found: Audit, softened: bool) -> Row:
    low, high = (100 * end for end in found.ece_change_ci95)
    parent = Cell(_flips(found.parent_flips), found.parent or "") if found.parent_flips else Cell("—", tone="quiet")
    heat = Cell("—", tone="quiet")
    if variant.package_id is not None:
        heat = Cell(wording.fixed(variant.temperature), _without(variant))
    return row(
        variant.id,
        _flips(variant.flips),
        parent,
        _worst_class(found),
        wording.percent(variant.ece, unit=False),
        Cell(wording.signed(100 * found.ece_change), wording.interval(low, high), _tone(low, high)),
        *([heat] if softened else []),
        marks=facts.marks(report, variant),
    )


def _flips(flips: Flips) -> str:
    return f"{wording.whole(flips.lost)} / {wording.whole(flips.gained)}"


def _worst_class(found: Audit) -> Cell:
    worst = max(found.classes, key=lambda change: change.drop_points, default=None)
    if worst is None or worst.drop_points <= 0:
        return Cell("none", tone="quiet")
    detail = f"{classes.label(worst.label)}, p {wording.p_value(worst.p)}"
    return Cell(wording.fixed(worst.drop_points), detail, "bad" if worst.p < SURE else "")


def _without(variant: Variant) -> str:
    """The calibration error that it would have at temperature 1."""
    if variant.ece_uncalibrated is None:
        return ""
    return f"{wording.percent(variant.ece_uncalibrated, unit=False)} % at 1"


def _tone(low: float, high: float) -> Tone:
    """Of an error that surely grew or shrank."""
    return "bad" if low > 0 else "good" if high < 0 else ""


def reliability_table(report: Report) -> Table | None:
    """What the choice's scores say, and how often they are right."""
    choice = facts.chosen(report)
    if choice is None or choice.audit is None:
        return None
    rows = []
    for bin_ in choice.audit.reliability:
        excess = 100 * (bin_.score - bin_.accuracy)
        rows.append(
            row(
                wording.percent(bin_.score, unit=False),
                wording.percent(bin_.accuracy, unit=False),
                Cell(wording.signed(excess), tone="bad" if excess > 5 and bin_.n >= _FEW else ""),
                wording.whole(bin_.n),
            )
        )
    columns: list[str | Column] = [
        "Mean score, %",
        "Right, %",
        "Too sure by, points",
        "Test items",
    ]
    return table(f"{choice.id}: test items by the score of their answer", columns, rows)


def promise_table(report: Report) -> Table | None:
    """What each variant promises of the answers that it gives; None where the recipe asks for no promise."""
    promising = [(variant, variant.abstention) for variant in report.variants if variant.abstention is not None]
    if not promising:
        return None
    one = promising[0][1]
    columns: list[str | Column] = [
        "Variant",
        "Abstains below",
        "Answered on validation",
        "Wrong of them",
        "Answered on test, %",
        "Right of them, %",
        "Wrong of them",
    ]
    caption = (
        f"Promised: {wording.percentage(100 * one.precision)} of the answers given are right, at "
        f"{wording.percentage(100 * one.confidence)} confidence. 95 % intervals beneath."
    )
    return table(caption, columns, [_promise_row(report, variant, found) for variant, found in promising])


def _promise_row(report: Report, variant: Variant, found: Abstention) -> Row:
    marks = facts.marks(report, variant)
    none = Cell("—", tone="quiet")
    if found.below is None or found.coverage is None or found.coverage_ci95 is None:
        return row(variant.id, Cell("no score promises it", tone="bad"), *[none] * 5, marks=marks)
    kept = found.test_precision is not None and found.test_precision >= found.precision
    return row(
        variant.id,
        wording.fixed(found.below, 4) if found.below else "never",
        f"{wording.whole(found.answered)} of {wording.whole(found.n)}",
        wording.whole(found.wrong),
        Cell(wording.percent(found.coverage, unit=False), _span(found.coverage_ci95)),
        none
        if found.test_precision is None or found.test_precision_ci95 is None
        else Cell(
            wording.percent(found.test_precision, unit=False), _span(found.test_precision_ci95), "" if kept else "bad"
        ),
        wording.whole(found.test_wrong),
        marks=marks,
    )


def _span(ends: tuple[float, float]) -> str:
    return " to ".join(wording.percent(end, 1, unit=False) for end in ends)


def group_table(report: Report) -> Table | None:
    """The groups of the choice, the greatest drop first; None where the recipe names no column of groups."""
    choice = facts.chosen(report)
    if choice is None or choice.audit is None or not choice.audit.groups:
        return None
    margin = report.constraints.max_group_drop_points
    rows = [_group_row(one, margin) for one in choice.audit.groups[:_GROUPS_SHOWN]]
    columns: list[str | Column] = [
        "Group",
        "Test items",
        "Baseline, %",
        "Choice, %",
        "Flips −/+",
        "Drop, points",
        Column("Judged", numeric=False),
    ]
    caption = f"{choice.id} by group, the greatest drop first. 95 % intervals beneath, each for its own group."
    if margin is not None:
        caption += f" Each that can be judged must be shown to lose at most {wording.points(margin)}."
    if len(choice.audit.groups) > _GROUPS_SHOWN:
        caption += f" {_GROUPS_SHOWN} of {wording.whole(len(choice.audit.groups))}; all are in report.json."
    return table(caption, columns, rows)


def _group_row(one: GroupChange, margin: float | None) -> Row:
    low, high = one.drop_points_ci95
    over = one.judged and margin is not None and high > margin
    verdict = Cell("over the margin", tone="bad") if over else Cell("" if margin is None else "within the margin")
    return row(
        classes.label(one.group),
        wording.whole(one.n),
        wording.percent(one.baseline_accuracy, unit=False),
        wording.percent(one.accuracy, unit=False),
        f"{wording.whole(one.lost)} / {wording.whole(one.gained)}",
        Cell(wording.fixed(one.drop_points), wording.interval(low, high)),
        verdict if one.judged else Cell("too small to judge", tone="quiet"),
    )


def exemplar_table(report: Report) -> Table | None:
    """The test items that most variants answer otherwise than the baseline."""
    if not report.exemplars:
        return None
    columns: list[str | Column] = [
        "Item",
        Column("Its label", numeric=False),
        Column("The baseline says", numeric=False),
        Column("Most that differ say", numeric=False),
        "Variants that differ",
    ]
    rows = [
        row(
            Cell(wording.short(one.origin, 60) or f"item {one.item}", f"test item {one.item}"),
            classes.label(one.label),
            Cell(classes.label(one.baseline), tone="good" if one.baseline == one.label else "bad"),
            Cell(classes.label(one.variants), tone="good" if one.variants == one.label else "bad"),
            f"{one.flipped} of {one.of}",
        )
        for one in report.exemplars
    ]
    return table("The items that most variants flip", columns, rows)
