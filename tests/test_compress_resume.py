"""kill -9 at any moment: the same command goes on, and ends where an undisturbed run ends."""

from __future__ import annotations

import re
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from forks import FORKS, limbeck, running
from helpers import image_classifier
from tiny_run import RECIPE, Ran, made_up_memory, package_ids, scores, weights

from compress.report.schema import Report
from compress.report.write import read_report
from compress.stages import measuring
from serve.images import ImagePreparer
from serve.manifest import ImagePreprocessing
from train import training as fitting
from train.augment import AugmentConfig
from train.classifier import Classifier
from train.data import DataConfig, load_data
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following
from train.inputs import ImageInputs

# In the order in which a run says them: amid epochs, as a model, a package, both measurements, the choice and a
# prediction begin.
KILL_AT = (
    "  epoch 2/3",
    "students/small-alone ...",
    "packages/small-int8-static ...",
    "latency ...",
    "memory ...",
    "choice ...",
    "test/small-fp32 ...",
)
LABELS = tuple("0123456789")


def run_in(folder: Path, recipe: Path, threads: int, stderr: Connection) -> None:
    """The command, in a process of its own, but what a process for each variant would weigh is made up."""
    torch.set_num_threads(threads)
    with mock.patch.object(measuring, "measure_memory", made_up_memory):
        limbeck(["run", str(recipe), "--out", str(folder)], stderr)


def said_by_a_run(recipe: Path, folder: Path, kill_at: str | None = None) -> str:
    """Run to the end, or kill the run (no handler runs) as soon as it says a line; what it had said until then."""
    theirs, ours = FORKS.Pipe(duplex=False)[::-1]
    # As many threads as the undisturbed run in this process has: sums in another order would differ in the last bits.
    child = FORKS.Process(target=run_in, args=(folder, recipe, torch.get_num_threads(), theirs))
    said = ""
    with running([child]):
        theirs.close()
        with ours, open(ours.fileno(), encoding="utf-8", closefd=False) as lines:
            for line in lines:
                said += line
                if kill_at is not None and line.startswith(kill_at):
                    child.kill()
                    break
        child.join()
    assert child.exitcode == (0 if kill_at is None else -signal.SIGKILL), f"it ended, and had said:\n{said}"
    return said


def stages_of(said: str, *states: str) -> set[str]:
    """The stages that a run said to be in one of `states`."""
    return {stage for stage, state in re.findall(r"^(\S+) (unchanged|done)", said, re.MULTILINE) if state in states}


def measured(report: Report) -> dict[str, Any]:
    """The report without what depends on the clock or on the machine's load, the choice among equals included."""
    timing = {"latency_ms", "speedup", "speedup_compute", "peak_rss_mb"}
    variants = [variant.model_dump(exclude=timing) for variant in report.variants]
    training = {
        name: [epoch.model_dump(exclude={"seconds"}) for epoch in epochs] for name, epochs in report.training.items()
    }
    ranking = {row.id: row.model_dump(exclude={"total_p50_ms", "total_p95_ms", "why"}) for row in report.choice.ranking}
    return {
        "variants": variants,
        "training": training,
        "ranking": ranking,
        "after_test": report.choice.after_test,
        "data": report.data,
        "preprocessing": report.preprocessing,
    }


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(tiny: Ran, tmp_path: Path) -> None:
    recipe, folder = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    done: set[str] = set()
    for line in KILL_AT:
        said = said_by_a_run(recipe, folder, kill_at=line)
        assert stages_of(said, "unchanged") >= done  # the kill before lost at most the stage in flight
        done = stages_of(said, "unchanged", "done")
        assert not (folder / "report.json").exists()
    said = said_by_a_run(recipe, folder)
    assert stages_of(said, "unchanged") >= done >= {"teacher", "latency", "memory", "choice", "test/teacher-torch"}
    assert "test/small-fp32" in stages_of(said, "done")  # it was in flight when the run was killed, and not recorded
    assert weights(folder) == weights(tiny.folder)
    assert package_ids(folder) == package_ids(tiny.folder)
    ours, theirs = scores(folder), scores(tiny.folder)
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if not (ours[path] == theirs[path]).all()] == []
    assert measured(read_report(folder)) == measured(tiny.report)
    assert not (folder / ".partial").exists()


@pytest.fixture(scope="module")
def splits() -> tuple[ImageInputs, ImageInputs]:
    data = load_data(DataConfig(source="digits", validation=0.2), seed=0)
    preparer = ImagePreparer(ImagePreprocessing(color="L", size=(8, 8)))
    train, validation = (
        ImageInputs(preparer.prepare(data.splits[name].content), data.splits[name].labels)
        for name in ("train", "validation")
    )
    return train, validation


@pytest.fixture(scope="module")
def whole(splits: tuple[ImageInputs, ImageInputs], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    fit(new(splits[0]), CONFIG, *splits, seed=1, folder=folder)
    return weights(folder)


CONFIG = FitConfig(epochs=4, batch_size=64, learning_rate=5e-3, augment=AugmentConfig(shift=1))


def new(train: ImageInputs) -> Classifier:
    return image_classifier(train.images, LABELS, hidden=16, dropout=0.3)


class StopError(Exception):
    """In the place of kill -9: leaves `fit` in the middle of a run."""


def interrupted(splits: tuple[ImageInputs, ImageInputs], folder: Path, after: int) -> Path:
    """Train until epoch `after` + 1 was evaluated, which is before its checkpoint is written; the checkpoints."""

    def stop(record: EpochRecord, epochs: int) -> None:
        if record.epoch > after:
            raise StopError

    with pytest.raises(StopError):
        fit(new(splits[0]), CONFIG, *splits, seed=1, folder=folder, following=Following(stop))
    return folder / fitting.CHECKPOINTS


@pytest.mark.parametrize("damage", ["none", "no state", "half a state", "everything"])
def test_training_goes_on_from_the_last_whole_checkpoint(
    splits: tuple[ImageInputs, ImageInputs], whole: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    checkpoints = interrupted(splits, tmp_path / "cut", after=2)
    found = sorted(checkpoints.iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    assert len(found) == 2
    for checkpoint in found if damage == "everything" else found[-1:]:
        state = checkpoint / "trainer_state.json"
        if damage == "half a state":
            state.write_text(state.read_text()[:100])
        elif damage != "none":
            state.unlink()
    resumed: list[int] = []
    result = fit(
        new(splits[0]),
        CONFIG,
        *splits,
        seed=1,
        folder=tmp_path / "cut",
        following=Following(lambda record, _: resumed.append(record.epoch)),
    )
    assert resumed[0] == {"none": 3, "everything": 1}.get(damage, 2)
    assert [record.epoch for record in result.epochs] == [1, 2, 3, 4]
    assert weights(tmp_path / "cut") == whole
    assert not checkpoints.exists()


def test_training_goes_on_in_a_folder_that_was_moved(
    splits: tuple[ImageInputs, ImageInputs], whole: dict[str, bytes], tmp_path: Path
) -> None:
    interrupted(splits, tmp_path / "cut", after=2)
    (tmp_path / "cut").rename(tmp_path / "moved")
    resumed: list[int] = []
    fit(
        new(splits[0]),
        CONFIG,
        *splits,
        seed=1,
        folder=tmp_path / "moved",
        following=Following(lambda record, _: resumed.append(record.epoch)),
    )
    assert resumed[0] == 3
    assert weights(tmp_path / "moved") == whole


# Nothing is learnt at this rate, so the first epoch stays the best and two more are granted.
PATIENT = FitConfig(epochs=9, batch_size=256, learning_rate=1e-12, patience=2)


@pytest.mark.parametrize("epoch", [2, 3])
def test_patience_is_not_forgotten_by_a_stop(
    splits: tuple[ImageInputs, ImageInputs], tmp_path: Path, epoch: int
) -> None:
    def stop(record: EpochRecord, epochs: int) -> None:
        if record.epoch == epoch:
            raise StopError

    with pytest.raises(StopError):
        fit(new(splits[0]), PATIENT, *splits, seed=1, folder=tmp_path, following=Following(stop))
    resumed = fit(new(splits[0]), PATIENT, *splits, seed=1, folder=tmp_path)
    assert [record.epoch for record in resumed.epochs] == [1, 2, 3]
    assert resumed.best_epoch == 1


@pytest.mark.parametrize("config", [CONFIG, PATIENT], ids=["all epochs", "patience"])
def test_training_that_had_ended_trains_no_further(
    splits: tuple[ImageInputs, ImageInputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: FitConfig
) -> None:
    def stop(*_: object) -> None:
        raise StopError

    whole = fit(new(splits[0]), config, *splits, seed=1, folder=tmp_path / "whole")
    monkeypatch.setattr(fitting, "save_classifier", stop)
    with pytest.raises(StopError):
        fit(new(splits[0]), config, *splits, seed=1, folder=tmp_path / "cut")
    monkeypatch.undo()
    told: list[int] = []
    resumed = fit(
        new(splits[0]),
        config,
        *splits,
        seed=1,
        folder=tmp_path / "cut",
        following=Following(lambda record, _: told.append(record.epoch)),
    )
    assert told == []
    timeless = [[(epoch.epoch, epoch.loss, epoch.accuracy) for epoch in result.epochs] for result in (whole, resumed)]
    assert timeless[0] == timeless[1]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
