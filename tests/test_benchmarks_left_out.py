from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_run import Ran

from benchmarks.left_out import best_bias, main


def test_the_bias_is_the_one_that_most_items_ask_for() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]))
    labels = np.array([0, 0, 1, 1])  # the second class is named too rarely: between 0.85 and 1.39 all are right
    assert np.log(7 / 3) < best_bias(logits, labels, 1) < np.log(4)


def test_a_label_that_was_left_out_is_learned_from_the_teacher(
    tiny: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "left_out.json"
    assert main([str(tiny.folder), "--student", "small", "--out", str(out)]) == 0
    (found,) = json.loads(out.read_text())
    said = capsys.readouterr()
    assert json.loads(said.out) == found
    assert "epoch 2/2" in said.err
    train = json.loads((tiny.folder / "report.json").read_text())["data"]["splits"]["train"]["size"]
    assert found["transfer_items"] < train  # without the threes
    assert found["test_items"] == 539
    assert found["errors_of_label_with_bias"] <= found["errors_of_label"] <= found["of_label"]
    right = found["of_label"] - found["errors_of_label_with_bias"]
    assert found["recall_with_bias"] == pytest.approx(100 * right / found["of_label"], abs=0.01)


def test_what_is_not_there_is_told(tiny: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny.folder), "--student", "smal"]) == 2
    assert "did you mean 'small'" in capsys.readouterr().err
    assert main([str(tiny.folder), "--student", "small", "--label", "x"]) == 2
    assert "no label 'x'" in capsys.readouterr().err
