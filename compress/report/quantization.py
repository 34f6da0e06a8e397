"""How variants were quantized: choices that were made for the recipe, and the graphs that int8-mixed tried."""

from __future__ import annotations

from compress.report import wording
from compress.report.schema import Report, Tried, Variant
from compress.report.tables import Cell, Column, Row, Table, row, table


def quantization_notes(report: Report) -> list[str]:
    """A sentence for each choice that was not the recipe's."""
    return [f"{variant.id}: {note}" for variant in report.variants for note in variant.notes]


def tried_tables(report: Report) -> list[Table]:
    """The trace of each search behind int8-mixed."""
    return [_tried_table(variant) for variant in report.variants if variant.tried]


def _tried_table(variant: Variant) -> Table:
    columns: list[str | Column] = [
        "Given back to floating point",
        "Divergence from fp32, nats",
        "Flips",
        "Time, of int8-static's",
        "Size",
    ]
    caption = f"What the search behind {variant.id} tried, on the calibration items"
    return table(caption, columns, [_tried_row(tried) for tried in variant.tried])


def _tried_row(tried: Tried) -> Row:
    return row(
        Cell(", ".join(tried.given_back) or "nothing: int8-static"),
        wording.difference(tried.divergence),
        wording.whole(tried.flips),
        wording.ratio(tried.slowdown),
        wording.size(tried.size_bytes),
        marks=["kept"] if tried.kept else [],
    )
