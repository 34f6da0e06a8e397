from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training import in_turn, measure_each
from serve.errors import UserError


def test_both_ways_go_first_as_often_and_the_first_round_warms_up() -> None:
    called: list[str] = []

    def way(name: str, seconds: float) -> float:
        called.append(name)
        return seconds + len(called) / 100

    found = in_turn([lambda: way("a", 1.0), lambda: way("b", 2.0)], rounds=2)
    assert "".join(called) == "ba" + "ab" + "ba"
    np.testing.assert_allclose(found, [[1.03, 1.06], [2.04, 2.05]])


def test_what_was_measured_is_kept_with_its_machine_also_where_a_recipe_lacks_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, rounds: int) -> dict[str, object]:
        if name == "cifar10":
            raise UserError("no data", "fetch it")
        return {"recipe": name, "rounds": rounds}

    out = tmp_path / "training.json"
    monkeypatch.setattr(sys, "argv", ["training", "--rounds", "3", "--out", str(out), "cifar10", "mnist"])
    with pytest.raises(SystemExit) as ended:
        measure_each("about", measure, rounds=7)
    assert ended.value.code == 2
    content = json.loads(out.read_text())
    assert content["recipes"] == [{"recipe": "mnist", "rounds": 3}]
    assert content["hardware"]
    assert content["versions"]
    assert "cifar10: no data; fetch it" in capsys.readouterr().err
