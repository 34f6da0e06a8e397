"""Two processes, gloo on the CPU, learn what one learns: the same losses, accuracies and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import in_two_processes
from helpers import image_classifier, image_inputs
from safetensors.torch import load_file
from two_trainings import IMAGES, LABELS, SHARDED, TARGETS, TRAININGS, results, train, train_together

from serve.errors import UserError
from train.augment import AugmentConfig
from train.batches import SharedBatches
from train.distill import DistillConfig
from train.distill.config import FeatureConfig
from train.fit_config import FitConfig
from train.processes import check_processes
from train.shard import check_sharded
from train.traced import IDLE, ROWS, TracedView
from train.views import EpochSampler, View, items_of_epoch


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of all trainings, by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    ended = in_two_processes(two, train_together, two)
    assert [process.code for process in ended] == [0, 0], "".join(process.said[-3000:] for process in ended)
    train(one, list(TRAININGS))
    return one, two


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_learn_what_one_learns(both: tuple[Path, Path], name: str) -> None:
    (expected,), (first, second) = results(both[0], name), results(both[1], name)
    assert first == second
    assert (expected["processes"], first["processes"]) == (1, 2)
    assert first["best_epoch"] == expected["best_epoch"]
    for mine, its in zip(first["epochs"], expected["epochs"], strict=True):
        assert mine["loss"] == pytest.approx(its["loss"], rel=1e-4)
        assert mine["accuracy"] == its["accuracy"]  # each item counts once, though 21 do not divide by two
    weights, theirs = (load_file(folder / name / "model.safetensors") for folder in both)
    assert weights.keys() == theirs.keys()
    for key, value in weights.items():
        assert np.allclose(value, theirs[key], atol=1e-5), key
    assert not (both[1] / name / "checkpoints").exists()


@pytest.mark.parametrize("name", [name for name in TRAININGS if name.startswith(SHARDED)])
def test_each_process_keeps_its_part_of_a_split_model(both: tuple[Path, Path], name: str) -> None:
    whole = {key: value.numel() for key, value in load_file(both[1] / name / "model.safetensors").items()}
    first, second = (json.loads((both[1] / f"{name}-{rank}.sizes").read_text()) for rank in (0, 1))
    assert first
    for one, two in zip(first, second, strict=True):
        assert {key: one[key] + two[key] for key in one} == {key: whole[key] for key in one}
        assert sum(one.values()) < 0.6 * sum(whole.values())
    assert all(result["sharded"] for result in results(both[1], name))


@pytest.mark.parametrize(
    ("settings", "lesson", "named"),
    [
        ({"l1": 0.1}, None, "fit.l1"),
        ({"unfreeze": 1}, None, "fit.unfreeze"),
        ({"compile": True}, None, "fit.compile"),
        ({"optimizer": "adafactor"}, None, "fit.optimizer = 'adafactor'"),
        ({"precision": "fp16"}, None, "fit.precision = 'fp16'"),
        ({}, DistillConfig(features=(FeatureConfig(loss="hidden-states", weight=1.0),)), "features"),
    ],
)
def test_what_needs_the_model_whole_is_refused(
    settings: dict[str, Any], lesson: DistillConfig | None, named: str
) -> None:
    check_sharded("small", FitConfig(**settings, epochs=0), lesson)
    check_sharded("small", FitConfig(), DistillConfig())
    with pytest.raises(UserError, match=named) as refused:
        check_sharded("small", FitConfig(**settings), lesson)
    assert "without --shard" in refused.value.hint


@pytest.mark.parametrize("items", [48, 49, 50, 55, 72])
def test_the_shares_of_all_processes_are_the_batches_of_one(items: int) -> None:
    view = View(image_inputs(IMAGES[:items], TARGETS[:items]), AugmentConfig(), 3)
    order = list(EpochSampler(view, 7, 24))
    shares = [list(SharedBatches(EpochSampler(view, 7, 24), 24, rank, 3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == len(SharedBatches(EpochSampler(view, 7, 24), 24, 0, 3))
    for at, parts in enumerate(zip(*shares, strict=True)):
        assert [row for part in parts for row in part if row >= 0] == order[at * 24 : (at + 1) * 24]
        assert all(parts)


def test_an_item_that_is_there_for_company_is_marked() -> None:
    view = TracedView(image_inputs(IMAGES, TARGETS), AugmentConfig(), 3)
    assert IDLE not in view.__getitems__([4])
    idle = view.__getitems__([-1 - 4])
    assert IDLE in idle
    assert idle[ROWS].tolist() == [4]


def test_batch_norm_never_meets_a_lone_item_of_a_share() -> None:
    norms, plain = (image_classifier(IMAGES, LABELS, model=model) for model in ("builtin:cnn-8", "builtin:mlp-8"))
    assert [items_of_epoch(total, 8, norms, 2) for total in (16, 17, 18, 19, 20, 21)] == [16, 16, 16, 16, 20, 21]
    assert items_of_epoch(17, 8, plain, 2) == 17
    assert [items_of_epoch(total, 8, norms) for total in (16, 17, 18)] == [16, 16, 18]


@pytest.mark.parametrize(
    ("settings", "lesson", "message", "hint"),
    [
        ({"batch_size": 33}, None, "'small': fit.batch_size = 33 .* 2 cannot share it evenly", "32 or 34"),
        ({"shrink_on_oom": True}, None, "shrink_on_oom is for one process", "fit.accumulation"),
        ({}, DistillConfig(method="dist"), "compares all items of a batch", "intra_weight = 0"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    settings: dict[str, int], lesson: DistillConfig | None, message: str, hint: str
) -> None:
    config = FitConfig(**settings)
    check_processes("small", config, lesson, 1)
    check_processes("small", config.model_copy(update={"epochs": 0}), lesson, 2)
    with pytest.raises(UserError, match=message) as refused:
        check_processes("small", config, lesson, 2)
    assert hint in refused.value.hint


def test_a_model_that_is_to_be_split_among_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_processes("small", FitConfig(), None, 1)
    with pytest.raises(UserError, match="ACCELERATE_USE_FSDP is set, but accelerate does not"):
        check_processes("small", FitConfig(), None, 2)
