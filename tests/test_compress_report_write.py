from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_factory import make_report

from compress.report.card import card
from compress.report.schema import Report
from compress.report.write import write_payloads
from train.data import Data
from train.sources import Items

NBSP = "\u00a0"
TEXTS = ["good film", "Ünïcode 世界", 'a "quote" \\', "line\nbreak"]


def _text_report() -> Report:
    preprocessing = {"kind": "text", "max_length": 64, "truncation": "right", "pad_id": 0}
    return make_report(labels=("no", "yes")).model_copy(update={"task": "text", "preprocessing": preprocessing})


def _payloads(folder: Path, task: Any, items: list[bytes]) -> Any:
    report = _text_report().model_copy(update={"task": task})
    scores = np.array([[0.75, 0.25], [0.125, 0.875], [0.5, 0.5], [1, 0]], np.float32)
    (folder / "predictions").mkdir()
    table = pa.table({"scores": pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), 2)})
    pq.write_table(table, folder / "predictions" / f"{report.choice.id}.parquet")
    splits = {"test": Items(items, np.zeros(4, np.int64))}
    write_payloads(report, Data("csv:x", task, ("no", "yes"), splits, {}), folder)
    return json.loads((folder / "loadtest" / "payloads.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", ["text", "image"])
def test_payloads_are_what_json_carries_with_the_answers_that_were_measured(tmp_path: Path, task: str) -> None:
    items = [text.encode() for text in TEXTS]
    payloads = _payloads(tmp_path, task, items)
    assert payloads["task"] == task
    sent = TEXTS if task == "text" else [base64.b64encode(item).decode() for item in items]
    answers = {
        text: (label, score)
        for text, label, score in zip(sent, ["no", "yes", "no", "no"], [0.75, 0.875, 0.5, 1], strict=True)
    }
    assert {item["input"]: (item["label"], item["score"]) for item in payloads["items"]} == answers


def test_the_card_of_a_text_model_says_what_is_cut() -> None:
    made = card(_text_report())
    assert made.use.startswith("Gives a text one of 2 labels")
    assert made.pipeline == "text-classification"
    assert any("64 tokens of a text at most" in line.replace(NBSP, " ") for line in made.limitations)
    assert not any("token" in line for line in card(make_report()).limitations)
