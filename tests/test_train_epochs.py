from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerControl

from train import epochs
from train.epochs import EpochClock, best_of, epoch_records, idle_patience, patience_is_over
from train.fit_config import FitConfig


def state(*accuracies: float) -> TrainerState:
    """As Trainer leaves it after so many epochs."""
    log: list[dict[str, float]] = []
    for epoch, accuracy in enumerate(accuracies, 1):
        log.append({"epoch": float(epoch), "loss": 1.0, "seconds": 1.0})
        log.append({"epoch": float(epoch), "eval_accuracy": accuracy, "eval_loss": 1.0, "eval_runtime": 0.5})
    return TrainerState(log_history=log)


def test_the_best_epoch_is_the_earliest_of_equals() -> None:
    assert best_of(epoch_records(state(0.5, 0.7, 0.7, 0.6))).epoch == 2


@pytest.mark.parametrize(
    ("accuracies", "threshold", "over"),
    [
        ((0.5, 0.7, 0.7, 0.7), 0.0, True),
        ((0.5, 0.7, 0.7, 0.71), 0.0, False),
        ((0.5, 0.7, 0.7, 0.71), 0.02, True),  # a gain, and too small to count
        ((0.5, 0.7, 0.715, 0.73), 0.02, False),  # two that are small, and together large enough
        ((0.5, 0.7, 0.65), 0.0, False),
    ],
)
def test_patience_ends_where_no_gain_counts(accuracies: tuple[float, ...], threshold: float, over: bool) -> None:
    config = FitConfig(patience=2, threshold=threshold)
    assert patience_is_over(config, state(*accuracies)) is over
    assert not patience_is_over(FitConfig(), state(*accuracies))


def test_an_epoch_is_timed_from_its_own_beginning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = iter([100.0, 130.0, 135.0, 140.0, 142.0])  # half a minute goes by before the first epoch
    monkeypatch.setattr(epochs.time, "perf_counter", lambda: next(now))
    clock, arguments = EpochClock(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    seconds = []
    for _ in range(2):
        clock.on_epoch_begin(arguments, TrainerState(), TrainerControl())
        seconds.append(clock.seconds)
    assert seconds == [5.0, 2.0]


def test_a_patience_that_comes_too_late_for_whole_images_is_told_with_epochs_that_are_enough() -> None:
    asked = {"patience": 2, "grow_images": [0.5, 1.0]}
    told = idle_patience(FitConfig.model_validate({"epochs": 6, **asked}))
    assert told is not None
    assert "7 epochs or more could be" not in told
    assert "8 epochs or more could be" in told
    assert idle_patience(FitConfig.model_validate({"epochs": 8, **asked})) is None


@pytest.mark.parametrize(("epochs", "stack", "idle"), [(5, None, False), (4, None, True), (6, 1, False), (5, 1, True)])
def test_a_patience_that_cannot_end_a_training_early_is_told(epochs: int, stack: int | None, idle: bool) -> None:
    """Of five epochs the first and three that are no better are four: the fifth is saved."""
    grown = None if stack is None else {"layers": [1], "epochs": [stack]}
    config = FitConfig.model_validate({"epochs": epochs, "patience": 3, "stack": grown})
    best_at = config.growing_epochs + 1
    ends = [at for at in range(best_at, epochs) if patience_is_over(config, state(*[0.5] * at))]
    assert (not ends) is idle
    told = idle_patience(config)
    assert (told is not None) is idle
    if told is not None:
        assert f"fit.patience = 3 cannot end a training of {epochs} epochs early: {epochs + 1} epochs or more" in told
    assert idle_patience(FitConfig()) is None
