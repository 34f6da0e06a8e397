from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs
from safetensors.torch import load_file
from torch import nn

from train.classifier import load_classifier
from train.distill import DistillConfig
from train.distill.config import FeatureConfig
from train.ema import AveragedWeights
from train.fit import fit
from train.fit_config import FitConfig
from train.teaching import Teaching

GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 64)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:20], TARGETS[:20])


def moved(model: nn.Module, average: AveragedWeights, updates: int) -> list[torch.Tensor]:
    """The first weight after each of so many made-up updates."""
    seen = []
    for update in range(updates):
        with torch.no_grad():
            model[0].weight.fill_(float(update**2))
            model[1].num_batches_tracked.fill_(update)
        average.update()
        seen.append(model[0].weight.detach().clone())
    return seen


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_the_average_is_the_recursion_with_a_start_that_is_soon_forgotten() -> None:
    model = network()
    average = AveragedWeights(model, 0.6)
    seen = moved(model, average, 20)
    expected = 0.0
    for update, weight in enumerate(seen[1:], 1):
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * float(weight[0, 0])
    average.put()
    assert float(model[0].weight[0, 0]) == pytest.approx(expected, rel=1e-5)
    assert int(model[1].num_batches_tracked) == 19


def test_the_weights_come_back_after_an_evaluation_also_one_that_failed() -> None:
    model = network()
    average = AveragedWeights(model, 0.9)
    last = moved(model, average, 5)[-1]

    def fail() -> None:
        with average.in_place():
            assert not torch.equal(model[0].weight, last)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(model[0].weight, last)


def test_an_average_that_was_saved_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    one, other = network(), network()
    whole = AveragedWeights(one, 0.9)
    moved(one, whole, 3)
    whole.save(tmp_path)
    other.load_state_dict(one.state_dict())  # as a checkpoint has it too
    resumed = AveragedWeights(other, 0.9)
    resumed.load(tmp_path)
    for model, average in ((one, whole), (other, resumed)):
        moved(model, average, 4)
        average.put()
    assert all(torch.equal(one.state_dict()[name], value) for name, value in other.state_dict().items())


def test_what_is_evaluated_and_kept_is_the_average_and_what_is_trained_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = image_classifier(IMAGES, tuple("abcd"), model="builtin:cnn-4")
    seen: list[dict[str, torch.Tensor]] = []
    update = AveragedWeights.update

    def noted(average: AveragedWeights) -> None:
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        update(average)

    monkeypatch.setattr(AveragedWeights, "update", noted)
    config = FitConfig(epochs=4, batch_size=16, learning_rate=2e-2, ema=0.7)
    result = fit(model, config, TRAIN, VALIDATION, 5, tmp_path)
    assert len(seen) == 16
    average = dict(seen[0])
    for at in range(1, 4 * result.best_epoch):
        decay = min(0.7, (1 + at) / (10 + at))
        average = {name: decay * value + (1 - decay) * seen[at][name] for name, value in average.items()}
    kept = load_classifier(tmp_path)
    last = seen[4 * result.best_epoch - 1]
    for name, value in kept.named_parameters():
        assert torch.allclose(value, average[name], atol=1e-5), name
    assert not all(torch.allclose(value, last[name], atol=1e-4) for name, value in kept.named_parameters())
    with torch.no_grad():
        right = kept(torch.from_numpy(VALIDATION.images)).argmax(dim=1).numpy() == VALIDATION.labels
    assert right.mean() == pytest.approx(max(epoch.accuracy for epoch in result.epochs))


@pytest.mark.parametrize("until", [None, 2])
def test_the_last_average_is_kept_also_of_a_student_that_learned_through_projections(
    tmp_path: Path, until: int | None
) -> None:
    student, teacher = (
        image_classifier(IMAGES, tuple("abcd"), model=f"builtin:cnn-{widths}") for widths in ("4x8", "8x12")
    )
    lesson = DistillConfig(features=(FeatureConfig(loss="hints", weight=0.5),))
    averages: list[AveragedWeights] = []

    def noted(model: nn.Module, decay: float) -> AveragedWeights:
        averages.append(AveragedWeights(model, decay))
        return averages[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.trainer.AveragedWeights", noted)
        config = FitConfig(epochs=2, batch_size=16, learning_rate=2e-2, ema=0.7, keep="last")
        teaching = Teaching(teacher, lesson, TRAIN)
        fit(student, config, TRAIN, None if until else VALIDATION, 5, tmp_path, teaching, until=until)
    averages[0].save(tmp_path)
    average, kept = load_file(tmp_path / "ema.safetensors"), load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("projections") for name in average)
    assert not any(name.startswith("projections") for name in kept)
    assert all(torch.equal(value, average[name]) for name, value in kept.items())


def test_what_the_first_of_several_processes_averaged_is_what_all_of_them_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = image_classifier(IMAGES, tuple("abcd"), model="builtin:resnet8")
    mean = next(value for name, value in model.named_buffers() if name.endswith("running_mean"))
    evaluated: list[bool] = []

    def as_the_first_has_it(network: nn.Module) -> None:
        mean.fill_(7.0)

    def note(module: nn.Module, _: object) -> None:
        if not module.training:
            evaluated.append(bool((mean == 7.0).all()))

    monkeypatch.setattr("train.trainer.same_statistics", as_the_first_has_it)
    config = FitConfig(epochs=1, batch_size=16, ema=0.7, precision="fp32")
    with model.register_forward_pre_hook(note):
        fit(model, config, TRAIN, VALIDATION, 5, tmp_path)
    assert any(evaluated)
