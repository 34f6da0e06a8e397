"""Pruning in steps: a network is made a little smaller, trained, made smaller again, until it is as small as asked.

What was cut is made good by the same lesson as afterwards: a distilled student asks its teachers in between too. The
trainings in between keep their last weights, whatever validation says of them, and have a schedule of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from train.classifier import Classifier, ModelConfig, load_classifier, next_pruned
from train.draft import Wanted
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.models import pruning_steps
from train.processes import meet, world

_RESULT = "result.json"
# What trains a classifier with these settings and saves it into a folder; the number is that of the step before it.
Train = Callable[[Classifier, FitConfig, Path, int], FitResult]


def recovered(
    classifier: Classifier,
    config: ModelConfig,
    wanted: Wanted,
    fit: FitConfig,
    folder: Path,
    train: Train,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Classifier, tuple[str, ...]]:
    """The network after its last step, yet to be trained with all of `fit`, and what to say of the steps before.

    `classifier` is new, as small as asked; the steps begin again with the teacher. Each step's training is kept in
    `folder` until `forget_steps`, and not done again by a call that finds it there. Anything but a model that is pruned
    in steps comes back as it is.
    """
    steps, epochs = pruning_steps(config.model, config.options)
    if steps == 1 or fit.epochs == 0:
        return classifier, ()
    # nor is it thawed layer by layer: that takes all epochs, and these would train its top alone, step for step
    alone = {"patience": None, "grow_images": (), "unfreeze": None}
    between = fit.model_copy(update={"epochs": epochs, "keep": "last", **alone})
    results: list[FitResult] = []
    untrained = classifier.untrained
    assert wanted.teacher is not None
    classifier = wanted.teacher
    for step in range(1, steps):
        place = _place(folder, step)
        if not (place / _RESULT).is_file():
            classifier = next_pruned(classifier, config, wanted, step)
            say(f"pruned, step {step} of {steps}: {classifier.params:,} parameters")
            result = train(classifier, between, place, step)
            if world().leads:
                (place / "partial").write_text(result.model_dump_json())
                (place / "partial").replace(place / _RESULT)  # there whole or not at all
            meet()
        results.append(FitResult.model_validate_json((place / _RESULT).read_text()))
        classifier = load_classifier(place)  # all processes cut the very same network
    classifier = next_pruned(classifier, config, wanted, steps)
    classifier.untrained = untrained
    say(f"pruned, step {steps} of {steps}: {classifier.params:,} parameters")
    return classifier, (_note(results, epochs, classifier.params),)


def forget_steps(folder: Path) -> None:
    """Delete what `recovered` keeps in `folder`."""
    if world().leads:
        for place in folder.glob(_place(folder, 0).name.replace("0", "*")):
            shutil.rmtree(place)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step}"


def _note(results: list[FitResult], epochs: int, params: int) -> str:
    """How the network became as small as it is."""
    shown = [f"{result.params:,}" for result in results]
    reached = [f"{result.epochs[-1].accuracy:.2%}" for result in results if result.epochs]
    accuracy = f" (validation {', '.join(reached)})" if reached else ""
    return (
        f"pruned in {len(results) + 1} steps to {', '.join(shown)} and {params:,} parameters, with {epochs} "
        f"{'epoch' if epochs == 1 else 'epochs'} of training after each but the last{accuracy}"
    )
