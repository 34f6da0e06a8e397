"""What a reader must know where models were trained a second time (`fit.final_refit`); empty where none was."""

from __future__ import annotations

from compress.report import wording
from compress.report.schema import Report


def refit_note(report: Report) -> str:
    """Which models were refitted, how, and which figures are of the weights before and after."""
    if not report.refits:
        return ""
    one = max(report.refits.values(), key=lambda refit: refit.items)  # 0 where it learns from unlabelled ones alone
    epochs = ", ".join(f"{wording.short(name, 60)} epoch {refit.epochs}" for name, refit in report.refits.items())
    return (
        f"Refitted on train, validation and calibration together ({wording.whole(one.items)} items, before "
        f"{wording.whole(one.items_before)}), each to the end of its best epoch: {epochs}. These weights have seen the "
        "validation items, so every drop on validation, and with it the choice, is of their counterparts from before "
        "the refit, which had not. What ships, and every figure on test, of latency, size and parity, is of the "
        "refitted weights."
    )
