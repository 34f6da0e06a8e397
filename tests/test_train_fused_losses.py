"""fit.kernels and the losses of a student: judged before a training on its first batch, kept for all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fused_networks import timer
from helpers import image_classifier, image_inputs
from kernel_cases import interpreter

from kernels import site_timing
from kernels.distill_loss import DistillLoss, distill_loss
from kernels.fuse import FuseOptions
from kernels.ledger import Ledger
from kernels.runtime import interpreted
from serve.errors import UserError
from train import fused as choosing
from train.checkpoints import CHECKPOINTS
from train.distill import DistillConfig, FeatureConfig, answers
from train.epochs import EpochRecord
from train.failed_kernels import FAILED
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.fused_front import ALL_KINDS
from train.fusion import LEDGER, Fusion
from train.teaching import Teaching

pytestmark = interpreter
LABELS, LOSS = tuple("abc"), "soft targets and labels"
GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), GENERATOR.integers(0, 3, 20)
CONFIG = FitConfig(epochs=2, batch_size=8, optimizer="sgd", learning_rate=0.05, precision="fp32")
FASTER, SLOWER = (3.0, 2.0, 1.0), (1.0, 1.0, 2.0)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes other options for how a training chooses; without, a clock by which all kernels are faster."""

    def take(**named: Any) -> None:
        chosen = FuseOptions(**{"timer": timer(*FASTER), **named}, kinds=ALL_KINDS)
        monkeypatch.setattr(Fusion, "_options", lambda self, config: chosen)

    take()
    return take


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The items of each batch whose loss a kernel computed in training."""
    items: list[int] = []

    def counted(student: torch.Tensor, *others: Any) -> DistillLoss:
        if choosing._rehearsal is None:
            items.append(len(student))
        return distill_loss(student, *others)

    monkeypatch.setattr(answers, "distill_loss", counted)
    return items


def taught(place: Path, config: FitConfig = CONFIG, stop_after: int | None = None) -> tuple[FitResult, Any, list[str]]:
    """Train a student. Gives its result, its weights and what was said of kernels."""

    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise RuntimeError("stopped here")

    student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:mlp-8") for seed in (1, 2))
    inputs, said = image_inputs(IMAGES, TARGETS), []
    lesson = Teaching(teacher, DistillConfig(temperature=3.0, alpha=0.7), inputs)
    with interpreted():
        result = fit(student, config, inputs, inputs, 3, place, lesson, Following(stop, said.append))
    return result, student.state_dict(), [line for line in said if "kernels" in line]


def ledger_of(result: FitResult) -> Ledger:
    assert result.kernels is not None
    return result.kernels


def test_what_wins_is_taken_and_recorded(tmp_path: Path, options, by_kernel) -> None:
    plain, weights, _ = taught(tmp_path / "off", CONFIG.model_copy(update={"kernels": "off"}))
    assert by_kernel == []
    result, learned, said = taught(tmp_path / "auto")
    assert by_kernel == [8, 8, 4] * 2
    (entry,) = ledger_of(result).losses
    assert (entry.site, entry.kernel, entry.kept) == (LOSS, "distill_loss", True)
    assert (entry.eager_ms, entry.compiled_ms, entry.fused_ms, entry.speed_up) == (*FASTER, 2.0)
    assert entry.error is not None
    assert entry.error < 1e-5
    sites = "fused kernels: 2 of 2 sites (distill_loss 1, normalise 1), 2.00 to 2.00 times as fast there"
    assert said == [sites]
    assert result.notes[0].startswith(f"trained with {sites}")
    assert FitResult.model_validate_json(result.model_dump_json()) == result
    assert Ledger.from_json(ledger_of(result).to_json()) == ledger_of(result)
    for name, value in weights.items():
        torch.testing.assert_close(learned[name], value, rtol=1e-4, atol=1e-6)
    assert [epoch.loss for epoch in result.epochs] == pytest.approx([epoch.loss for epoch in plain.epochs], rel=1e-5)


def test_a_slow_kernel_is_not_taken(tmp_path: Path, options, by_kernel, monkeypatch) -> None:
    def wall(run: Callable[[], object]) -> float:
        begun = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - begun)

    def slow(*given: Any) -> DistillLoss:
        time.sleep(0.3)
        return distill_loss(*given)

    monkeypatch.setattr(answers, "distill_loss", slow)
    monkeypatch.setattr(site_timing, "_compiled_ms", lambda *_: None)
    options(timer=wall)
    result, _, _ = taught(tmp_path)
    (entry,) = ledger_of(result).losses
    assert not entry.kept
    assert entry.why.startswith("not faster: 0.")
    assert entry.fused_ms is not None
    assert entry.fused_ms > 300
    assert entry.speed_up is not None
    assert entry.speed_up < 1


def wrong(student: torch.Tensor, *others: Any) -> DistillLoss:
    found = distill_loss(student, *others)
    return found._replace(loss=found.loss * 1.02)


def failing(*given: Any) -> DistillLoss:
    raise RuntimeError("out of resource: shared memory, Required: 300000")


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (wrong, "it is off by 2.0e-02 of the largest value, and may be by 5e-05"),
        (failing, "it failed: RuntimeError: out of resource: shared memory, Required: 300000"),
    ],
)
def test_a_wrong_kernel_and_one_that_fails_are_not_taken(tmp_path: Path, options, monkeypatch, kernel, why) -> None:
    _, weights, _ = taught(tmp_path / "off", CONFIG.model_copy(update={"kernels": "off"}))
    options(timer=timer(*SLOWER))  # the front stays plain, so that the weights show what the loss was
    monkeypatch.setattr(answers, "distill_loss", kernel)
    result, learned, _ = taught(tmp_path / "auto")
    (entry,) = ledger_of(result).losses
    assert (entry.kept, entry.why, entry.fused_ms) == (False, why, None)
    assert all(torch.equal(value, learned[name]) for name, value in weights.items())


def test_a_training_that_goes_on_keeps_its_choice(tmp_path: Path, options, by_kernel, monkeypatch) -> None:
    _, weights, _ = taught(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped here"):
        taught(tmp_path / "stopped", stop_after=1)
    known = json.loads((tmp_path / "stopped" / CHECKPOINTS / LEDGER).read_text())
    assert [(loss["site"], loss["kept"]) for loss in known["losses"]] == [(LOSS, True)]
    options(timer=timer(*SLOWER))
    monkeypatch.setattr(choosing, "judge_loss", lambda *_: pytest.fail("it was judged again"))
    by_kernel.clear()
    result, learned, _ = taught(tmp_path / "stopped")
    assert by_kernel[-3:] == [8, 8, 4]
    assert ledger_of(result).losses[0].kept
    assert all(torch.equal(value, learned[name]) for name, value in weights.items())


def test_a_loss_whose_kernel_fails_in_a_step_is_plain_when_the_training_goes_on(tmp_path, options, monkeypatch) -> None:
    def fails_later(*given: Any) -> DistillLoss:
        if choosing._rehearsal is None:
            raise RuntimeError("Triton Error [CUDA]: invalid argument")
        return distill_loss(*given)

    monkeypatch.setattr(answers, "distill_loss", fails_later)
    with pytest.raises(UserError, match=r"a kernel failed in training: RuntimeError: Triton Error \[CUDA\]"):
        taught(tmp_path)
    assert (tmp_path / CHECKPOINTS / FAILED).is_file()
    result, _, said = taught(tmp_path)
    assert ledger_of(result).failed
    assert not ledger_of(result).any_kept
    assert "not tried again" in said[0]


def test_a_network_that_keeps_no_kernel_has_them_in_its_losses_all_the_same(tmp_path, options, by_kernel, monkeypatch):
    monkeypatch.setattr(Fusion, "_unfit", lambda self, config: "fit.stack replaces layers while they are trained")
    result, _, said = taught(tmp_path)
    assert by_kernel == [8, 8, 4] * 2
    assert ledger_of(result).kept == ()
    assert said == ["fused kernels: 1 of 2 sites (distill_loss 1), 2.00 to 2.00 times as fast there"]
    assert result.notes


def test_maps_are_judged_by_their_sizes(tmp_path: Path, options) -> None:
    student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:cnn-4x8") for seed in (1, 2))
    inputs = image_inputs(IMAGES, TARGETS)
    config = DistillConfig(method="logits-mse", features=(FeatureConfig(loss="hints", weight=0.5),))
    options(force=True, timer=None)
    with interpreted():
        result = fit(
            student,
            CONFIG.model_copy(update={"epochs": 1}),
            inputs,
            inputs,
            3,
            tmp_path,
            Teaching(teacher, config, inputs),
        )
    losses = ledger_of(result).losses
    assert [entry.site for entry in losses] == ["hints of 4 x 8 x 8", "hints of 8 x 4 x 4", "hints of 8 x 2 x 2"]
    assert all(entry.kept and entry.kernel == "hidden_loss" for entry in losses)


@pytest.mark.parametrize("split", ["training", "validation"])
def test_a_label_out_of_range_is_refused_before_a_kernel_sees_it(
    tmp_path: Path, options, by_kernel, split: str
) -> None:
    good, bad = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES, np.where(TARGETS == 2, 7, TARGETS))
    student, teacher = (image_classifier(IMAGES, LABELS, seed, "builtin:mlp-8") for seed in (1, 2))
    train, validation = (bad, good) if split == "training" else (good, bad)
    with (
        interpreted(),
        pytest.raises(UserError, match=rf"{split} item \d+ has the label 7: expected 0 to 2, one of the 3"),
    ):
        fit(student, CONFIG, train, validation, 3, tmp_path, Teaching(teacher, DistillConfig(), train))
    assert not by_kernel
