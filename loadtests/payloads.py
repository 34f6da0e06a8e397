"""The items of a run's test split with the answers that were measured for them, and whether an answer is that one."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAYLOADS = Path("loadtest") / "payloads.json"
TOLERANCE = 1e-5  # of a score, as in `limbeck verify`


@dataclass(frozen=True)
class Item:
    """One input in the forms that requests take, and the answer that was measured for it."""

    text: str  # what JSON holds: a text itself, an image as base64
    content: bytes  # of an image
    label: str
    score: float


@dataclass(frozen=True)
class Payloads:
    """What `loadtest/payloads.json` of a run holds."""

    file: Path
    model_id: str
    task: str  # "image" or "text"
    items: tuple[Item, ...]

    def wrong(self, answer: Any, items: list[Item]) -> str:
        """What is wrong with an answer, from JSON, to these items; empty if it is right."""
        try:
            if answer["model"]["id"] != self.model_id:
                return f"answered by model {answer['model']['id']}, expected {self.model_id}"
            for prediction, item in zip(answer["predictions"], items, strict=True):
                if prediction["label"] != item.label:
                    return f"label {prediction['label']!r}, expected {item.label!r}"
                if not abs(prediction["score"] - item.score) <= TOLERANCE:
                    return f"score {prediction['score']}, expected {item.score}"
        except (KeyError, TypeError, ValueError) as error:
            return f"the answer is not in the expected form: {error!r}"
        return ""


def find_payloads() -> Path:
    """The payload file to use; ends the process with a message if there is none."""
    if named := os.environ.get("LIMBECK_RUN"):
        file = Path(named) / PAYLOADS
        if file.is_file():
            return file
        raise SystemExit(f"error: {file} is not there\nhint: LIMBECK_RUN must name the directory of a completed run")
    files = sorted(Path("runs").glob(f"*/{PAYLOADS}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise SystemExit(
            f"error: no run under {Path('runs').resolve()} has a {PAYLOADS}\n"
            "hint: run `limbeck run digits` first, or set LIMBECK_RUN to a run's directory"
        )
    return files[-1]


def load_payloads(file: Path) -> Payloads:
    """Ends the process with a message if the file is not as expected."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        task = content["task"]
        if task not in ("image", "text"):
            raise ValueError(f"its task is {task!r}")
        items = tuple(
            Item(item["input"], _content(item["input"], task), item["label"], float(item["score"]))
            for item in content["items"]
        )
        if not items:
            raise ValueError("it has no items")
        return Payloads(file, content["model_id"], task, items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{error} is missing in it" if isinstance(error, KeyError) else error
        raise SystemExit(f"error: cannot use {file}: {problem}\nhint: run the recipe again") from None


def _content(text: str, task: str) -> bytes:
    return text.encode("utf-8") if task == "text" else base64.b64decode(text, validate=True)
