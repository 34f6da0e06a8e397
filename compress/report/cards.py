"""What each package's card.json says of it once it was measured: the card may change, the package's id does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from compress.measure.predictions import read_scores
from compress.report.schema import Report, Variant
from compress.rundir import write_text
from serve.metrics import SCORES
from serve.package import CARD, MANIFEST

_JUDGED = {"metric", "target_percent", "max_drop_points"}


def write_cards(report: Report, folder: Path) -> None:
    """Fill in the cards of a run's packages."""
    for variant in report.variants:
        file = folder / "packages" / variant.id / CARD
        if not file.exists():
            continue
        card = json.loads(file.read_text(encoding="utf-8"))
        card["metrics"] = _metrics(report, variant)
        labels = json.loads(file.with_name(MANIFEST).read_text(encoding="utf-8"))["labels"]
        card["expected"] = expected_answers(read_scores(folder / "predictions" / f"{variant.id}.parquet"), labels)
        write_text(file, json.dumps(card, indent=2) + "\n")


def _metrics(report: Report, variant: Variant) -> dict[str, Any]:
    metrics = {
        "split": "test",
        "n": variant.n,
        "accuracy": variant.accuracy,
        "accuracy_ci95": variant.accuracy_ci95,
        "macro_f1": variant.macro_f1,
        "ece": variant.ece,
        "accuracy_drop_points": variant.accuracy_drop_points,
        "accuracy_drop_points_ci95": variant.accuracy_drop_points_ci95,
        "verdict": variant.verdict,
    }
    if report.constraints.target_percent is not None:  # else the verdict would seem to rest on the drop
        metrics["judged"] = report.constraints.model_dump(include=_JUDGED)
    return metrics


def expected_answers(scores: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Of scores [N, K]: the share of inputs given each label, and of those whose best score is at most each bound.

    The server shows them beside what it counts, so that a drift of the inputs is seen.
    """
    share = np.bincount(scores.argmax(axis=1), minlength=len(labels)) / len(scores)
    best = scores.max(axis=1)
    return {
        "labels": dict(zip(labels, np.round(share, 6).tolist(), strict=True)),
        "confidence": {f"{bound:g}": round(float((best <= bound).mean()), 6) for bound in SCORES},
    }
