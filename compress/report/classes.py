"""What happened to each class: confusion matrices (where classes are many, the most confused pairs) and recall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compress.report import facts, wording
from compress.report.schema import ClassChange, ClassScore, Report, Variant
from compress.report.tables import Cell, Column, Row, Table, row, table

MATRIX_CLASSES = 20  # more do not fit a page
_PAIRS_SHOWN = 15
_ROWS_SHOWN = 24  # of the table by class, before it is folded
_LABEL_LENGTH = 40


def label(text: str) -> str:
    """A class name that fits a table."""
    return wording.short(text, _LABEL_LENGTH) or "(empty name)"


def confusion_tables(report: Report) -> list[Table]:
    """A matrix each for the baseline and the choice; the most confused pairs where there are too many classes."""
    choice = facts.chosen(report)
    if len(report.data.labels) > MATRIX_CLASSES:
        return [_pairs(report, choice or facts.baseline(report))]
    shown = [facts.baseline(report)]
    if choice is not None and choice.id != report.baseline:
        shown.append(choice)
    return [_matrix(report, variant) for variant in shown]


def _matrix(report: Report, variant: Variant) -> Table:
    heads = [label(text) for text in report.data.labels]
    rows = [
        row(head, *_matrix_cells(counts, at))
        for at, (head, counts) in enumerate(zip(heads, variant.confusion, strict=False))
    ]
    caption = f"{variant.id}: true class in rows, predicted in columns"
    return table(caption, ["True", *heads], rows, kind="matrix")


def _matrix_cells(counts: list[int], true: int) -> Iterator[Cell]:
    total = sum(counts)
    for predicted, count in enumerate(counts):
        share = count / total if total else 0.0
        hit = predicted == true
        yield Cell(wording.whole(count), heat=share, hit=hit) if count or hit else Cell("·", tone="quiet")


def _pairs(report: Report, variant: Variant) -> Table:
    """The confusions of `variant` that are most common, beside those of the baseline."""
    base, labels = facts.baseline(report).confusion, report.data.labels
    found = [
        (count, true, predicted)
        for true, counts in enumerate(variant.confusion)
        for predicted, count in enumerate(counts)
        if true != predicted and count
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1:]))
    rows = [
        row(
            label(labels[true]),
            label(labels[predicted]),
            wording.whole(count),
            wording.whole(base[true][predicted]),
            wording.whole(sum(variant.confusion[true])),
        )
        for count, true, predicted in found[:_PAIRS_SHOWN]
    ]
    columns: list[str | Column] = [
        "True",
        Column("Taken for", numeric=False),
        "Times",
        "By the baseline",
        "Test items of the true class",
    ]
    caption = f"{variant.id}: the {len(rows)} most common of {len(found)} kinds of confusion"
    return table(caption, columns, rows)


def worst_class(report: Report) -> str:
    """Which class pays most for the choice, in a sentence; empty where there is no choice, or no class to compare."""
    choice, base = facts.chosen(report), facts.baseline(report)
    if choice is None or choice.id == base.id:
        return ""
    pairs = [pair for pair in zip(base.per_class, choice.per_class, strict=False) if pair[1].n]
    if not pairs:
        return ""
    before, after = min(pairs, key=lambda pair: pair[1].recall - pair[0].recall)
    if after.recall >= before.recall:
        return "No class lost recall against the baseline."
    changes = {change.label: change for change in choice.audit.classes} if choice.audit else {}
    paired, lost = changes.get(after.label), 100 * (before.recall - after.recall)
    span = "" if paired is None else f", 95 % interval for all classes together {_span(paired)}"
    return (
        f"“{label(after.label)}” lost most recall of all classes: {wording.points(lost)} "
        f"({wording.percent(before.recall)} → {wording.percent(after.recall)} "
        f"of {wording.plural(after.n, 'test item')}{span})."
    )


def _span(change: ClassChange) -> str:
    return wording.interval(*change.drop_points_ci95)


def class_table(report: Report) -> Table:
    """Recall of the baseline and of the choice by class, the greatest loss first."""
    choice, base = facts.chosen(report) or facts.baseline(report), facts.baseline(report)
    pairs = sorted(
        zip(base.per_class, choice.per_class, strict=False), key=lambda pair: pair[1].recall - pair[0].recall
    )
    changes = {change.label: change for change in choice.audit.classes} if choice.audit else {}
    rows = [_class_row(before, after, changes.get(after.label)) for before, after in pairs]
    columns: list[str | Column] = [
        "Class",
        "Test items",
        "Baseline recall, %",
        "Choice recall, %",
        "Change, points",
        "Precision, %",
        "F1, %",
    ]
    caption = f"Recall by class of {base.id} and {choice.id}, greatest loss first"
    if changes:
        caption += "; intervals of the changes hold for all classes together at 95 %"
    whole = table(caption, columns, rows)
    if len(rows) <= _ROWS_SHOWN:
        return whole
    part = table(f"{caption}: {_ROWS_SHOWN // 2} at either end", columns, _ends(rows))
    return replace(part, more=replace(whole, caption=f"{caption}: all {len(rows)}"))


def _ends(rows: list[Row]) -> list[Row]:
    half = _ROWS_SHOWN // 2
    return [*rows[:half], *rows[-half:]]


def _class_row(before: ClassScore, after: ClassScore, paired: ClassChange | None) -> Row:
    if after.n == 0:  # rates of nothing are recorded as 0, which would read as a collapse
        return row(label(after.label), "0", *[Cell("no test items", tone="quiet")], *[Cell("—", tone="quiet")] * 4)
    change = 100 * (after.recall - before.recall)
    return row(
        label(after.label),
        wording.whole(after.n),
        wording.percent(before.recall, unit=False),
        wording.percent(after.recall, unit=False),
        Cell(
            wording.signed(change),
            "" if paired is None else wording.interval(-paired.drop_points_ci95[1], -paired.drop_points_ci95[0]),
            tone="bad" if change < 0 else "good" if change > 0 else "quiet",
        ),
        wording.percent(after.precision, unit=False),
        wording.percent(after.f1, unit=False),
    )
