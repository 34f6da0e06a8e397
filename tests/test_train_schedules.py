"""The learning rate of each update, by formula; epochs of ten updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import TrainerControl, TrainerState

from train.fit_config import FitConfig
from train.schedules import PlateauWarmup, new_schedule

EPOCHS, UPDATES, RATE = 10, 100, 0.4


def optimizer(kind: type[torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> torch.optim.Optimizer:
    return kind(nn.Linear(2, 2).parameters(), lr=RATE, **options)


def rates(config: FitConfig, over: torch.optim.Optimizer | None = None, updates: int = UPDATES) -> list[float]:
    """The rate that each update is made with."""
    over = over or optimizer(momentum=0.9)
    schedule = new_schedule(config, over, updates)
    seen = []
    for _ in range(updates):
        seen.append(over.param_groups[0]["lr"])
        over.step()
        schedule.step()
    return seen


def config(schedule: str, **options: Any) -> FitConfig:
    return FitConfig(epochs=EPOCHS, learning_rate=RATE, schedule=schedule, **options)


# The share of the rate at update u when the first 20 of 100 updates warm up.
AFTER_WARMUP: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "constant": ({}, lambda u: 1.0),
    "linear": ({}, lambda u: (100 - u) / 80),
    "cosine": ({}, lambda u: (1 + math.cos(math.pi * (u - 20) / 80)) / 2),
    "step": ({"step_every": 3, "step_factor": 0.5}, lambda u: 0.5 ** (u // 30)),
    "polynomial": ({"power": 3.0}, lambda u: ((100 - u) / 80) ** 3),
}


@pytest.mark.parametrize("schedule", AFTER_WARMUP)
def test_a_schedule_warms_up_and_follows_its_formula(schedule: str) -> None:
    options, share = AFTER_WARMUP[schedule]
    found = rates(config(schedule, warmup=0.2, **options))
    assert found == pytest.approx([RATE * (u / 20 if u < 20 else share(u)) for u in range(UPDATES)])


def test_one_cycle_goes_up_in_the_warmup_and_down_to_almost_nothing_and_momentum_the_other_way() -> None:
    over = optimizer(torch.optim.AdamW)
    found = rates(config("one-cycle", warmup=0.3), over)
    assert (found[0], found[29], found[-1]) == pytest.approx((RATE / 25, RATE, RATE / 250_000))
    assert found[:30] == sorted(found[:30])
    assert found[29:] == sorted(found[29:], reverse=True)
    fresh = optimizer(torch.optim.AdamW)
    schedule = new_schedule(config("one-cycle", warmup=0.3), fresh, UPDATES)
    moments = []
    for _ in range(UPDATES):
        moments.append(fresh.param_groups[0]["betas"][0])
        fresh.step()
        schedule.step()
    assert (moments[0], moments[29], moments[-1]) == pytest.approx((0.95, 0.85, 0.95))


@pytest.mark.parametrize("updates", [1, 2, 10, 20])
@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.SGD])
def test_one_cycle_needs_neither_many_updates_nor_momentum(updates: int, kind: type[torch.optim.Optimizer]) -> None:
    name = "adagrad" if kind is torch.optim.Adagrad else "sgd"
    over = optimizer(kind) if name == "adagrad" else optimizer(kind, momentum=0.9)
    found = rates(config("one-cycle", optimizer=name), over, updates)
    assert all(0 < rate <= RATE for rate in found)


def test_a_plateau_lowers_the_rate_after_so_many_epochs_without_a_gain_that_counts() -> None:
    over = optimizer()
    schedule = new_schedule(config("plateau", step_every=2, step_factor=0.5, threshold=0.01), over, UPDATES)
    assert isinstance(schedule, ReduceLROnPlateau)
    found = []
    for accuracy in (0.50, 0.60, 0.605, 0.609, 0.70, 0.70, 0.70, 0.70):  # 0.605 and 0.609 are too little above
        schedule.step(accuracy)
        found.append(over.param_groups[0]["lr"] / RATE)
    assert found == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_a_plateau_counts_no_epoch_of_a_part_of_the_network_also_where_it_is_resumed() -> None:
    stack = {"layers": [1, 2], "epochs": [2, 2]}
    settings = config("plateau", step_every=2, step_factor=0.5, stack=stack)
    over = optimizer()
    schedule = new_schedule(settings, over, UPDATES)
    found = []
    for epoch, accuracy in enumerate((0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6)):  # with all layers it is worse at first
        if epoch in (3, 6):
            state, schedule = schedule.state_dict(), new_schedule(settings, over, UPDATES)
            schedule.load_state_dict(state)
        schedule.step(accuracy)
        found.append(over.param_groups[0]["lr"] / RATE)
    assert found == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0.5])


def test_a_plateau_counts_no_epoch_of_small_images() -> None:
    over = optimizer()
    schedule = new_schedule(config("plateau", step_every=1, step_factor=0.5, grow_images=[0.5, 1.0]), over, UPDATES)
    found = []
    for _ in range(EPOCHS):
        schedule.step(0.5)
        found.append(over.param_groups[0]["lr"] / RATE)
    small = EPOCHS // 2
    assert found == pytest.approx([1.0] * (small + 1) + [0.5**at for at in range(1, EPOCHS - small)])


def test_a_plateau_warms_up_by_the_number_of_the_update_and_then_leaves_the_rate_alone() -> None:
    over = optimizer()
    warmup = PlateauWarmup(over, 4)
    state = TrainerState()
    found = []
    for state.global_step in range(7):
        if state.global_step == 5:
            over.param_groups[0]["lr"] *= 0.1  # a plateau
        warmup.on_step_begin(None, state, TrainerControl())
        found.append(over.param_groups[0]["lr"] / RATE)
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.1, 0.1])


def test_a_plateau_without_a_warmup_begins_with_the_whole_rate() -> None:
    over = optimizer()
    warmup = PlateauWarmup(over, 0)
    for step in range(2):
        warmup.on_step_begin(None, TrainerState(global_step=step), TrainerControl())
        assert over.param_groups[0]["lr"] == RATE
