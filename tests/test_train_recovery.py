"""What trains a network between the steps in which it is pruned."""

from __future__ import annotations

from pathlib import Path

from test_train_models_narrow import text_teacher
from text_models import wanted

from train.classifier import Classifier, ModelConfig, new_classifier, save_classifier
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.recovery import recovered


def test_the_trainings_in_between_have_a_schedule_of_their_own(tmp_path: Path) -> None:
    """Early stopping and thawing layer by layer are for all epochs: a few would train the top alone, each time."""
    asked = wanted(teacher=text_teacher(tmp_path / "model", "bert", layers=4))
    config = ModelConfig(model="teacher-layers:2", options={"steps": 2, "recovery_epochs": 1}).checked("text")
    fit = FitConfig(epochs=8, unfreeze=2, patience=3, learning_rate=3e-4)
    seen: list[FitConfig] = []

    def train(network: Classifier, between: FitConfig, place: Path, step: int) -> FitResult:
        seen.append(between)
        save_classifier(network, place)
        return FitResult(epochs=[], best_epoch=1, params=network.params, macs=1)

    recovered(new_classifier(config, asked), config, asked, fit, tmp_path / "student", train)
    assert seen == [FitConfig(epochs=1, keep="last", learning_rate=3e-4)]
