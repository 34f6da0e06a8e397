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
from helpers import LABELS, Served, colored

from serve.runner import scores

ROOT = Path(__file__).parent.parent
ITEMS = [colored(r, g, b) for r, g, b in [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (90, 200, 30)]]


def _payloads(run: Path, served: Served, **changes: Any) -> Path:
    """Write what the pipeline writes; `changes` go into each item, or replace the model's id."""
    model_id = changes.pop("model_id", served.model_id)
    items = [
        {
            "input": base64.b64encode(item).decode(),
            "label": LABELS[int(row.argmax())],
            "score": float(row.max()),
            **changes,
        }
        for item, row in zip(ITEMS, scores(served.predictor, ITEMS), strict=True)
    ]
    (run / "loadtest").mkdir(parents=True)
    content = {"model_id": model_id, "task": "image", "items": items}
    (run / "loadtest" / "payloads.json").write_text(json.dumps(content))
    return run


def _locust(served: Served, cwd: Path, seconds: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
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
