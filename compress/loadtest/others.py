"""Load for a package of the run that was not selected: the selection's payloads with this package's own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress.measure.predictions import read_scores
from compress.report.schema import Report
from compress.report.write import PAYLOADS
from serve.errors import UserError, did_you_mean


def served(report: Report, variant: str) -> str:
    """`variant`, which a server can serve. Raises UserError for any other."""
    known = [one.id for one in report.variants if one.package_id is not None]
    if variant not in known:
        raise UserError(f"the run has no package '{variant}'", did_you_mean(variant, known))
    return variant


def with_answers_of(report: Report, variant: str, folder: Path, scratch: Path) -> Path:
    """A folder whose payloads hold the answers of `variant`: the run itself for its choice, else one in `scratch`."""
    if variant == report.choice.id:
        return folder
    content = payloads_by_row(folder)
    answers = read_scores(folder / "predictions" / f"{variant}.parquet")
    for item in content["items"]:
        scores = answers[item["row"]]
        item["label"], item["score"] = report.data.labels[int(scores.argmax())], float(scores.max())
    content["model_id"] = report.variant(variant).package_id
    (scratch / PAYLOADS).parent.mkdir(exist_ok=True)
    (scratch / PAYLOADS).write_text(json.dumps(content), encoding="utf-8")
    return scratch


def payloads_by_row(folder: Path) -> dict[str, Any]:
    """The payloads of a run that say which test items they are. Raises UserError for those that do not."""
    content: dict[str, Any] = json.loads((folder / PAYLOADS).read_text(encoding="utf-8"))
    if any("row" not in item for item in content["items"]):
        raise UserError(
            f"{folder / PAYLOADS} is from an earlier version, which did not say which test items it holds",
            "the same `limbeck run` writes it again; nothing is trained for that",
        )
    return content
