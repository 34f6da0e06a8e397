"""Fit a classifier, with or without a teacher: what cannot be trained is refused, then the same path for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serve.errors import UserError
from train.arguments import training_device
from train.classifier import Classifier, save_classifier
from train.distill.lesson import check_labels
from train.epochs import idle_patience
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import FOLLOWED_BY_NOBODY, Following
from train.inputs import Inputs
from train.layers import freeze, never_thawed
from train.lone_items import check_lone_items
from train.losses import check_range
from train.memory import within_memory
from train.memory_format import memory_format
from train.precision import choose_arithmetic
from train.processes import world
from train.progressive import check_progressive
from train.teaching import Teaching
from train.training import Job
from train.training import train as train_with


def fit(
    classifier: Classifier,
    config: FitConfig,
    train: Inputs,
    validation: Inputs | None,
    seed: int,
    folder: Path,
    teaching: Teaching | None = None,
    following: Following = FOLLOWED_BY_NOBODY,
    guide: Classifier | None = None,
    origins: Sequence[str] | None = None,
    until: int | None = None,
    shard: bool = False,
) -> FitResult:
    """Train `classifier`, keep its best epoch on validation, and save it into `folder`.

    Checkpoints lie in `folder`/checkpoints after each epoch; a call that finds some there goes on from the last
    and ends with the same weights as one that was never interrupted. They are deleted at the end.
    `guide` is the teacher where text augmentation alone asks it: a control sees the views that its student sees.
    `origins` say where each training item came from.
    With `until`, then without `validation`, the weights after that epoch are kept; the learning rates on the way are
    those of all `config.epochs`. `shard` splits the model over all processes while it is trained.
    Raises Paused where `following` wants to go on later, and UserError when the loss stops being a number, when memory
    runs out, and where nothing is to be trained that should be.
    """
    assert (validation is None) == (until is not None), "without validation the epoch to keep must be known"
    if config.epochs == 0:
        return _as_it_is(classifier, folder)
    for split, inputs in (("training", train), ("validation", validation)):
        if inputs is not None:
            check_range(inputs.labels, classifier.spec.labels, split)
    _check(classifier, config, teaching)
    arithmetic = choose_arithmetic(config.precision, classifier, classifier.macs(), training_device())
    following.say(f"training in {arithmetic.precision}: {arithmetic.why}")
    if (order := memory_format(classifier)) is not None:
        following.say(order)
    if until is None:  # else it was told of the training that chose the epoch
        for idle in filter(None, (idle_patience(config), never_thawed(config, classifier))):
            following.say(idle)
    job = Job(
        classifier, arithmetic, train, validation, seed, folder, teaching, following, guide, origins, until, shard
    )
    start = {name: value.clone() for name, value in classifier.state_dict().items()} if config.shrink_on_oom else {}

    def attempt(config: FitConfig) -> FitResult:
        if start:
            classifier.load_state_dict(start)
        _check_lone_items(classifier, config)  # micro-batches that were halved may have come to one
        freeze(config, classifier.requires_grad_(True))
        return train_with(job, config)

    result = within_memory(config, attempt, following.say, classifier)
    classifier.requires_grad_(True)
    return result


def _check(classifier: Classifier, config: FitConfig, teaching: Teaching | None) -> None:
    """Raises UserError for settings that the classifier or its teachers cannot follow."""
    _check_lone_items(classifier, config)
    if teaching is None:
        check_progressive(config, classifier)
        return
    for teacher, _ in teaching.teachers:
        check_progressive(config, classifier, teacher, features=bool(teaching.config.features))
        check_labels(classifier, teacher)
    teaching.config.check_accumulation(config.accumulation)
    teaching.config.check_classes(len(classifier.spec.labels))


def _check_lone_items(classifier: Classifier, config: FitConfig) -> None:
    """Raise UserError where each process would see a single item at a time, and batch norm cannot have that."""
    if config.batch_size == world().size:
        check_lone_items(classifier, min(config.grow_images, default=1.0))


def check_trained(classifier: Classifier) -> None:
    """Raise UserError for a classifier that `fit.epochs = 0` cannot take as it is."""
    if classifier.untrained is not None:
        raise UserError(
            f"fit.epochs = 0 takes '{classifier.spec.model}' as it is, but it was never trained for these data: "
            f"{classifier.untrained}",
            "set fit.epochs to 1 or more, or name a model whose id2label in config.json is exactly the data's labels "
            "(where only the names differ, rename them there)",
        )


def _as_it_is(classifier: Classifier, folder: Path) -> FitResult:
    check_trained(classifier)
    if world().leads:
        save_classifier(classifier, folder)
    return FitResult(epochs=[], best_epoch=0, params=classifier.params, macs=classifier.macs())
