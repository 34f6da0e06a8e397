"""Write a run's report in its four forms, and the payloads that a load test sends."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.measure.predictions import read_scores
from compress.report.cards import write_cards
from compress.report.loads import read_loads
from compress.report.render import render_html, render_markdown, render_model_card
from compress.report.schema import Report
from compress.rundir import write_text
from serve.errors import UserError

if TYPE_CHECKING:
    from train.data import Data  # with scikit-learn, which the pages of a run that ended do not need

REPORT_JSON = "report.json"
PAYLOADS = Path("loadtest") / "payloads.json"
_PAYLOADS = 256


def write_report(report: Report, folder: Path) -> None:
    """report.html, report.md and MODEL_CARD.md, then report.json: a server that finds it finds the others whole."""
    write_text(folder / "report.html", render_html(report, read_loads(report, folder)))
    write_text(folder / "report.md", render_markdown(report))
    write_text(folder / "MODEL_CARD.md", render_model_card(report))
    write_cards(report, folder)
    write_text(folder / REPORT_JSON, report.model_dump_json(indent=2) + "\n")


def read_report(folder: Path) -> Report:
    """The report of a run. Raises UserError where there is none."""
    file = folder / REPORT_JSON
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError:
        below = sorted(folder.glob(f"*/{REPORT_JSON}"))
        hint = "is this a run directory? `limbeck run RECIPE` makes one"
        if below:  # as of `limbeck repeat` and `limbeck crossvalidate`
            hint = f"it is a folder of runs: name one of them, such as {below[0].parent}"
        raise UserError(f"no report in {folder}", hint) from None
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
            "row": row,
            "input": _as_json(items.content[row], report.task),
            "label": data.classes[int(answers[row].argmax())],
            "score": float(answers[row].max()),
        }
        for row in rows
    ]
    content = {"model_id": chosen.package_id, "task": report.task, "items": payloads}
    (folder / PAYLOADS).parent.mkdir(exist_ok=True)
    write_text(folder / PAYLOADS, json.dumps(content) + "\n")


def _as_json(item: bytes, task: str) -> str:
    return item.decode("utf-8") if task == "text" else base64.b64encode(item).decode("ascii")
