"""What int8_export says of times and answers; that it refuses what it cannot measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import int8_export
from benchmarks.int8_export import REFERENCE, main
from benchmarks.int8_ways import timed
from serve.errors import UserError


def test_times_are_medians_and_ratios_those_of_each_round() -> None:
    times = {
        REFERENCE: np.array([[4.0, 2.0], [8.0, 2.0], [40.0, 2.0]]) / 1e3,
        "ours": np.array([[2.0, 1.0], [4.0, 1.0], [10.0, 4.0]]) / 1e3,
    }
    told = int8_export._told(times, "ours")
    assert (told["n"], told["clock_ms"], told["processor_ms"]) == (3, 4.0, 1.0)
    assert (told["clock_times_faster"], told["processor_times_faster"]) == (2.0, 2.0)
    assert int8_export._told(times, REFERENCE)["clock_times_faster"] == 1.0


def test_ways_take_turns_on_the_same_inputs() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def way(name: str) -> int8_export.Way:
        return timed(lambda ids: seen[name].append(int(ids[0, 0])) or np.zeros((1, 2), dtype=np.float32))

    inputs = [np.array([[number]]) for number in range(7)]
    times = int8_export._in_turn({name: way(name) for name in seen}, inputs, None)
    assert seen["a"] == seen["b"] == [0] * 5 + list(range(7))
    assert times["a"].shape == (7, 2)
    assert (times["a"] >= 0).all()


def test_accuracy_is_paired_with_the_reference() -> None:
    labels = np.array([0, 1] * 50)
    ours = labels.copy()
    ours[:3] = 1 - ours[:3]
    theirs = labels.copy()
    theirs[50] = 1 - theirs[50]
    told = int8_export._accuracy({REFERENCE: theirs, "ours": ours}, labels, "ours")
    assert (told["percent"], told["drop_points"], told["flips"]) == (97.0, 2.0, [3, 1])
    low, high = told["drop_points_ci95"]
    assert low < 2.0 < high


def test_a_run_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err


def test_a_run_on_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {
        "name": "images",
        "data": {"source": "digits"},
        "teacher": {"model": "builtin:cnn-8"},
        "accept": {"max_drop_points": 5},
    }
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe}))
    assert main([str(tmp_path)]) == 2
    assert "text" in capsys.readouterr().err


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import openvino_peer
    from loadtests.peers import surroundings

    monkeypatch.setattr(surroundings.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="OpenVINO is left out"):
        openvino_peer.environment(tmp_path / "none")
