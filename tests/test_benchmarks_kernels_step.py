"""The benchmark of a step end to end, at a tiny size on a CPU, so that it is right when it first meets a GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from kernel_cases import interpreter

from benchmarks import kernels_step
from benchmarks.kernels_step import WAYS, Size, main, measure, report, table
from kernels import fused_layers
from kernels.runtime import interpreted

pytestmark = interpreter
TINY = Size(batch=2, length=3, hidden=8, heads=2, ffn=12, layers=1, student_layers=1, vocabulary=20)
CPU = torch.device("cpu")


def test_all_ways_give_the_same_loss_and_gradient_and_are_timed_in_turn() -> None:
    seen: list[int] = []

    def after_each(ways: Any) -> None:
        seen.append(sum(len(way.times_ms) for way in ways))

    with interpreted():
        ways = measure(TINY, CPU, torch.float32, 600.0, rounds=2, backend="aot_eager", after_each=after_each)
    assert seen == [2, 4, 6, 8]
    assert [way.name for way in ways] == list(WAYS)
    assert [way.wrong for way in ways] == [""] * 4
    assert [len(way.times_ms) for way in ways] == [2] * 4
    assert [None if way.ledger is None else len(way.ledger.kept) for way in ways] == [None, 4, None, 4]
    kept = [None if way.ledger is None else [loss.site for loss in way.ledger.losses if loss.kept] for way in ways]
    assert kept == [None, ["soft targets and labels"], None, ["soft targets and labels"]]
    content = json.loads(json.dumps(report(ways, TINY, torch.float32)))
    assert [row["times_as_fast_as_eager"] is not None for row in content["ways"]] == [True] * 4
    assert content["size"]["hidden"] == 8
    assert all(name in table(content) for name in WAYS)


def test_a_way_that_gives_another_loss_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_step, "WAYS", ("eager", "fused"))
    whole = fused_layers.bias_gelu

    def wrong(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return whole(x, bias) * (float("nan") if chosen else 1.0)

    chosen, fuse = False, kernels_step.fuse

    def fused(*given: Any) -> Any:
        nonlocal chosen
        ledger = fuse(*given)
        chosen = True  # right until then, wrong afterwards
        return ledger

    monkeypatch.setattr(kernels_step, "fuse", fused)
    monkeypatch.setattr(fused_layers, "bias_gelu", wrong)
    with interpreted():
        ways = measure(TINY, CPU, torch.float32, rounds=1)
    assert ways[1].wrong.startswith("its loss is nan")
    assert not ways[1].times_ms
    assert ways[0].times_ms


def test_ways_for_which_no_time_is_left_are_named() -> None:
    ways = measure(TINY, CPU, torch.float32, seconds=0.0, rounds=1)
    assert [way.wrong for way in ways] == ["", *["no time was left for it"] * 3]
    assert len(ways[0].times_ms) == 1


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "nothing can be measured here: the tensors are on cpu" in capsys.readouterr().err
