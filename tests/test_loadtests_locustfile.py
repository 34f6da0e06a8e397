"""The locust file as a user runs it, against a real server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import Served, colored, texts

from serve.runner import scores

ROOT = Path(__file__).parent.parent
ITEMS = [colored(r, g, b) for r, g, b in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (90, 200, 30)]]
TEXTS = [*texts(20), "Ünïcode 世界 \U0001f600".encode(), b"very good " * 40]


def _payloads(run: Path, served: Served, **changes: Any) -> Path:
    """Write what the pipeline writes; `changes` go into each item, or replace the model's id."""
    task = served.predictor.package.manifest.task
    items = ITEMS if task == "image" else TEXTS
    content = {
        "model_id": changes.pop("model_id", served.model_id),
        "task": task,
        "items": [
            {
                "input": base64.b64encode(item).decode() if task == "image" else item.decode(),
                "label": served.predictor.labels[int(row.argmax())],
                "score": float(row.max()),
                **changes,
            }
            for item, row in zip(items, scores(served.predictor, items), strict=True)
        ],
    }
    (run / "loadtest").mkdir(parents=True)
    (run / "loadtest" / "payloads.json").write_text(json.dumps(content))
    return run


def _locust(served: Served, cwd: Path, seconds: int = 4, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--host", served.url]
    options = ["--headless", "-u", "4", "-r", "4", "-t", f"{seconds}s", "--stop-timeout", "5"]
    clean = {name: value for name, value in os.environ.items() if name != "LIMBECK_RUN"}
    return subprocess.run(
        [*command, *options],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_right_answers_end_with_status_0(served: Served, tmp_path: Path) -> None:
    _payloads(tmp_path / "runs" / "digits", served)
    result = _locust(served, tmp_path)  # finds the newest run of the working directory
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("json 1", "json 8", "multipart 2", "raw 1"):
        assert name in result.stderr + result.stdout


def test_texts_go_as_json_alone(served_text: Served, tmp_path: Path) -> None:
    result = _locust(served_text, tmp_path, LIMBECK_RUN=str(_payloads(tmp_path / "run", served_text)))
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed
    assert "json 1" in printed
    assert "json 8" in printed
    assert "raw 1" not in printed
    wrong = _locust(served_text, tmp_path, 1, LIMBECK_RUN=str(_payloads(tmp_path / "wrong", served_text, score=0.123)))
    assert wrong.returncode == 1
    assert "expected 0.123" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": "blue"}, "expected 'blue'"),
        ({"score": 0.123}, "expected 0.123"),
        ({"model_id": "other"}, "expected other"),
    ],
)
def test_a_planted_wrong_answer_ends_with_another_status(
    served: Served, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    run = _payloads(tmp_path / "digits", served, **change)
    result = _locust(served, tmp_path, 1, LIMBECK_RUN=str(run))
    assert result.returncode == 1
    assert expected in result.stdout + result.stderr


def test_no_payloads_is_said_in_two_lines(served: Served, tmp_path: Path) -> None:
    for environment in ({}, {"LIMBECK_RUN": str(tmp_path)}):
        result = _locust(served, tmp_path, **environment)
        assert result.returncode != 0
        assert "payloads.json" in result.stderr
        assert "hint: " in result.stderr
        assert "Traceback" not in result.stderr
