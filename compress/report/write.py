"""Write a run's report in its four forms, and the payloads that a load test sends."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from compress.predictions import read_scores
from compress.report.render import render_html, render_markdown, render_model_card
from compress.report.schema import Report
from compress.rundir import write_text
from serve.errors import UserError
from serve.package import CARD
from train.data import Data

REPORT_JSON = "report.json"
_PAYLOADS = 256
_JUDGED = {"metric", "target_percent", "max_drop_points"}


def write_report(report: Report, folder: Path) -> None:
    """report.html, report.md and MODEL_CARD.md, then report.json: a server that finds it finds the others whole."""
    write_text(folder / "report.html", render_html(report))
    write_text(folder / "report.md", render_markdown(report))
    write_text(folder / "MODEL_CARD.md", render_model_card(report))
    _write_cards(report, folder)
    write_text(folder / REPORT_JSON, report.model_dump_json(indent=2) + "\n")


def read_report(folder: Path) -> Report:
    """The report of a run. Raises UserError where there is none."""
    file = folder / REPORT_JSON
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"no report in {folder}", "is this a run directory? `limbeck run RECIPE` makes one") from None
    except ValueError:
        raise UserError(f"{file} was not written by this version", "run the recipe again") from None


def write_payloads(report: Report, data: Data, folder: Path) -> None:
    """loadtest/payloads.json: a sample of the test split with the answers that were measured, for the load test.

    An input is what a JSON body holds of it: a text itself, an image as base64.
    """
    chosen = report.variant(report.choice.id)
    items = data.splits["test"]
    answers = read_scores(folder / "predictions" / f"{chosen.id}.parquet")
    rows = np.random.default_rng(report.run.seed).permutation(len(items))[:_PAYLOADS].tolist()
    payloads = [
        {
            "input": _as_json(items.content[row], report.task),
            "label": data.classes[int(answers[row].argmax())],
            "score": float(answers[row].max()),
        }
        for row in rows
    ]
    content = {"model_id": chosen.package_id, "task": report.task, "items": payloads}
    (folder / "loadtest").mkdir(exist_ok=True)
    write_text(folder / "loadtest" / "payloads.json", json.dumps(content) + "\n")


def _as_json(item: bytes, task: str) -> str:
    return item.decode("utf-8") if task == "text" else base64.b64encode(item).decode("ascii")


def _write_cards(report: Report, folder: Path) -> None:
    """Each package's card.json gets what was measured of it: the card may change, the package's id does not."""
    for variant in report.variants:
        file = folder / "packages" / variant.id / CARD
        if not file.exists():
            continue
        card = json.loads(file.read_text(encoding="utf-8"))
        card["metrics"] = {
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
            card["metrics"]["judged"] = report.constraints.model_dump(include=_JUDGED)
        write_text(file, json.dumps(card, indent=2) + "\n")
