"""Kernels that failed in a training are not tried again when it goes on, and one line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import interpreter
from test_train_fusion import SETTINGS, texts
from text_models import text_classifier, tiny_folder

from kernels import fused_layers
from kernels.fuse import FuseOptions
from kernels.runtime import interpreted
from serve.errors import UserError
from train.checkpoints import CHECKPOINTS
from train.classifier import Classifier
from train.epochs import EpochRecord
from train.failed_kernels import FAILED, Failure, blamed, remembered
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.fused_front import ALL_KINDS
from train.fusion import Fusion, fuse_as

pytestmark = interpreter
CPU = torch.device("cpu")
NO_ROOM = pytest.importorskip("triton.runtime.errors").OutOfResources(300_000, 232_448, "shared memory")
SAID = "OutOfResources: out of resource: shared memory, Required: 300000, Hardware limit: 232448."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "bert", layers=1, hidden_size=8, intermediate_size=12)


class Watched:
    """What a training said."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.said: list[str] = []
        self.stop_after = stop_after

    @property
    def of_kernels(self) -> list[str]:
        return [line for line in self.said if "fused kernels" in line]

    def follow(self, record: EpochRecord, epochs: int) -> None:
        if self.stop_after is not None and record.epoch > self.stop_after:
            raise RuntimeError("stopped here")


def trained(model: Path, place: Path, watched: Watched, **settings: Any) -> tuple[Classifier, FitResult]:
    classifier = text_classifier(f"hf:{model}", dropout=0.0)
    config = FitConfig.model_validate({**SETTINGS, **settings})
    items = texts(classifier, 12)
    with interpreted():
        result = fit(
            classifier, config, items, items, 5, place, following=Following(watched.follow, watched.said.append)
        )
    return classifier, result


def never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.fusion.fuse", lambda *_: pytest.fail("it was tried again"))


def test_a_choice_that_ran_out_of_memory_is_not_made_again(model, tmp_path, monkeypatch) -> None:
    place, plain = tmp_path / "stopped", trained(model, tmp_path / "off", Watched(), kernels="off")[0]

    def no_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")

    monkeypatch.setattr("train.fusion.fuse", no_memory)
    first = Watched(stop_after=1)
    with pytest.raises(RuntimeError, match="stopped here"):
        trained(model, place, first)
    reason = "it could not be tried: OutOfMemoryError: CUDA out of memory. Tried to allocate 90 GiB"
    assert first.of_kernels == [f"fused kernels: none of 4 sites: {reason}"]
    never_again(monkeypatch)
    second, where = Watched(), place / CHECKPOINTS / FAILED
    classifier, result = trained(model, place, second)
    why = f"not tried again ({reason}); delete {where} to try once more"
    assert second.of_kernels == [f"fused kernels: none of 4 sites: {why}"]
    assert result.kernels is not None
    assert result.kernels.why == why
    assert not where.exists()  # the training is done
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_launch_that_fails_in_the_first_step_ends_the_use_of_kernels(model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Fusion, "_options", lambda self, config: FuseOptions(force=True, kinds=ALL_KINDS))
    place, plain = tmp_path / "failing", trained(model, tmp_path / "off", Watched(), kernels="off")[0]
    bias_gelu, chosen = fused_layers.bias_gelu, False

    def failing(*given: torch.Tensor) -> torch.Tensor:
        if chosen:
            raise NO_ROOM
        return bias_gelu(*given)

    def choose(*given: Any) -> None:
        nonlocal chosen
        fuse_as(*given)
        chosen = True

    monkeypatch.setattr(fused_layers, "bias_gelu", failing)
    monkeypatch.setattr("train.fusion.fuse_as", choose)
    with pytest.raises(UserError, match="a kernel failed in training: OutOfResources: out of resource") as told:
        trained(model, place, Watched())
    assert told.value.hint.startswith("the same command goes on without fused kernels")
    never_again(monkeypatch)
    second = Watched()
    classifier, result = trained(model, place, second)
    assert len(second.of_kernels) == 1
    assert f"not tried again (a kernel failed in training: {SAID}" in second.of_kernels[0]
    assert result.kernels is not None
    assert result.kernels.failed
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in plain.state_dict().items())


def test_it_holds_for_the_same_gpu_and_batch_alone(tmp_path: Path) -> None:
    failure = Failure("no room", "cpu", 32, training=False)
    assert remembered(tmp_path, CPU, 32) is None
    failure.remember(tmp_path / "new")
    assert remembered(tmp_path / "new", CPU, 32) == failure
    assert remembered(tmp_path / "new", CPU, 16) is None
    Failure("no room", "NVIDIA H200", 32, training=False).remember(tmp_path / "new")
    assert remembered(tmp_path / "new", CPU, 32) is None
    (tmp_path / "new" / FAILED).write_text('{"why": ')
    assert remembered(tmp_path / "new", CPU, 32) is None


def test_where_it_cannot_be_written_down_the_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    Failure("no room", "cpu", 32, training=False).remember(tmp_path / "file")


def test_kernels_are_blamed_for_what_triton_and_the_gpu_say() -> None:
    def wrapped(error: Exception) -> Exception:
        outer = RuntimeError("backend failed")
        outer.__cause__ = error
        return outer

    assert blamed(NO_ROOM) == blamed(wrapped(NO_ROOM))
    assert str(blamed(NO_ROOM)).startswith(SAID)
    launch = "Triton Error [CUDA]: invalid argument"
    assert blamed(RuntimeError(launch)) == f"RuntimeError: {launch}"
    illegal = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")
    assert blamed(illegal) == "AcceleratorError: CUDA error: an illegal memory access was encountered"
    for other in (RuntimeError("stopped here"), torch.OutOfMemoryError("CUDA out of memory"), UserError("no", "")):
        assert blamed(other) is None
