"""One training on `transformers.Trainer`, from its views and its lesson to the weights that are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PrinterCallback, TrainerCallback

from kernels.ledger import Ledger
from train.arguments import training_arguments, training_device
from train.augment import AugmentConfig
from train.augment.augmenter import text_augmenter
from train.checkpoints import CHECKPOINTS, last_checkpoint, state_of
from train.classifier import Classifier, save_classifier
from train.compiled import compiled
from train.curves import Curves
from train.epochs import (
    EpochRecord,
    Paused,
    PauseWhenSaved,
    Until,
    best_of,
    epoch_callbacks,
    epoch_records,
    patience_is_over,
)
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.following import Following
from train.fusion import Fusion, note_on_kernels
from train.image_growth import growth_of
from train.inputs import Inputs
from train.layers import Unfreeze
from train.losses import LabelLoss
from train.precision import Arithmetic
from train.processes import OwnDropout, meet, note_on_norms, world
from train.recompute import recomputing
from train.shard import sharded_copy, whole
from train.stacking import Stacking
from train.teaching import Teaching
from train.traced import TracedView
from train.trainer import ClassifierTrainer
from train.views import View, WorkerError


@dataclass(frozen=True)
class Job:
    """What `train.fit.fit` was asked for, without the settings: these change where memory runs out."""

    classifier: Classifier
    arithmetic: Arithmetic
    train: Inputs
    validation: Inputs | None
    seed: int
    folder: Path
    teaching: Teaching | None
    following: Following
    guide: Classifier | None
    origins: Sequence[str] | None
    until: int | None
    shard: bool


def train(job: Job, config: FitConfig) -> FitResult:
    """Train with these settings, keep the best epoch, or the one that was asked for, and save it."""
    classifier = sharded_copy(job.classifier, training_device()) if job.shard else job.classifier
    checkpoints = job.folder / CHECKPOINTS
    last = _last(checkpoints)
    _stay_paused(job, config, last)
    with ExitStack() as ending:
        trainer = _trainer(job, config, classifier, last, ending)
        try:
            with _switches(job, config, trainer, classifier, last) as ledger:
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except WorkerError as error:
            raise error.told() from None
        finally:  # off with autocast: it is exported next
            trainer.accelerator.unwrap_model(classifier, keep_fp32_wrapper=False)
        if job.until is not None or config.keep == "last":
            trainer.take_average()  # of the lesson's projections too, which are still there
    if job.shard:
        job.classifier.load_state_dict(whole(classifier.state_dict()))
        classifier = job.classifier
    classifier.to("cpu")
    meet()  # all have read the best checkpoint
    if world().leads:
        save_classifier(classifier, job.folder)
        shutil.rmtree(checkpoints)
    return _result(job, config, classifier, epoch_records(trainer.state), ledger)


def _trainer(
    job: Job, config: FitConfig, classifier: Classifier, last: Path | None, ending: ExitStack
) -> ClassifierTrainer:
    """The trainer of `classifier`; what has to be closed after it is left to `ending`."""
    teaching = job.teaching
    fixed = teaching is not None and teaching.is_fixed(config)
    view = _view(job, config, teaching.answers() if teaching is not None and fixed else None)
    lesson = None if teaching is None else teaching.lesson(classifier, fixed)
    curves = None if job.following.curves is None else Curves(job.following.curves)
    stacking = None if config.stack is None else Stacking(classifier, config.stack)
    for end in (stacking and stacking.close, curves and curves.close, lesson and lesson.end):  # the last ends first
        ending.callback(end or (lambda: None))
    trainer = ClassifierTrainer(
        model=classifier,
        args=training_arguments(config, job.arithmetic, job.train, job.seed, job.folder / CHECKPOINTS, last, job.until),
        train_dataset=view,
        eval_dataset=None if job.validation is None else View(job.validation, AugmentConfig(), job.seed),
        callbacks=[*([] if stacking is None else [stacking]), *_callbacks(job, config)],
        config=config,
        label_loss=LabelLoss(config, classifier.spec.labels, job.train.labels),
        lesson=lesson,
        origins=job.origins,
        curves=curves,
    )
    trainer.remove_callback(PrinterCallback)  # it prints each log; `on_epoch` tells them better
    return trainer


def _result(
    job: Job, config: FitConfig, classifier: Classifier, records: list[EpochRecord], ledger: Ledger | None
) -> FitResult:
    return FitResult(
        epochs=records,
        best_epoch=_kept(config, records) if job.until is None else job.until,
        params=classifier.params,
        macs=classifier.macs(),
        precision=job.arithmetic.precision,
        precision_why=job.arithmetic.why,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        processes=world().size,
        sharded=job.shard,
        notes=(*note_on_norms(classifier), *note_on_kernels(ledger)),
        kernels=ledger,
    )


def _stay_paused(job: Job, config: FitConfig, last: Path | None) -> None:
    """Raise Paused where training stands at a checkpoint after which it is to be paused."""
    if job.following.pause is None or last is None:
        return
    state = state_of(last)
    records = epoch_records(state)
    ends = patience_is_over(config, state) or len(records) >= config.epochs
    if records and not ends and job.following.pause(records[-1]):
        raise Paused(records)


def _kept(config: FitConfig, records: list[EpochRecord]) -> int:
    """The epoch whose weights are kept."""
    return records[-1].epoch if config.keep == "last" else best_of(records[config.growing_epochs :]).epoch


def _view(job: Job, config: FitConfig, taught: np.ndarray | None) -> TracedView:
    """The training split as student and teachers see it; `taught` are the teachers' answers where they are known."""
    classifier, teaching = job.classifier, job.teaching
    teachers = [] if teaching is None else [teacher for teacher, _ in teaching.teachers]
    guide = job.guide or (teaching.teacher if teaching else None)  # the recipe's teacher, whoever teaches
    return TracedView(
        job.train,
        config.augment,
        job.seed,
        taught,
        [] if teaching is None else teaching.as_seen(job.train),
        text_augmenter(config.augment, job.train, guide, classifier, job.seed, job.following.say, teachers),
        len(classifier.spec.labels),
        growth_of(config),
    )


@contextmanager
def _switches(
    job: Job, config: FitConfig, trainer: ClassifierTrainer, classifier: Classifier, last: Path | None
) -> Iterator[Ledger | None]:
    """What changes how the network is run while it is trained, and nothing of what it learns. Gives its kernels."""
    fusion = Fusion(
        job.train,
        job.arithmetic,
        job.folder / CHECKPOINTS,
        last is not None,
        job.shard,
        job.following.say,
        trainer.rehearse,
    )
    with ExitStack() as switches:
        ledger = switches.enter_context(fusion.of(config, classifier))
        if config.gradient_checkpointing:
            switches.enter_context(recomputing(classifier))
        if config.compile:
            switches.enter_context(compiled(classifier.network, training_device()))
        yield ledger


def _callbacks(job: Job, config: FitConfig) -> list[TrainerCallback]:
    own: list[TrainerCallback] = [OwnDropout()]
    if config.unfreeze is not None:
        own.append(Unfreeze(job.classifier, config.unfreeze))
    if job.until is not None:
        return [*own, Until(job.until, job.following.say)]
    own += [] if job.following.pause is None else [PauseWhenSaved(config, job.following.pause)]
    return [*own, *epoch_callbacks(config, job.following.on_epoch)]


def _last(checkpoints: Path) -> Path | None:
    """The checkpoint to go on from. The first process looks alone at first, since broken ones are deleted."""
    if world().leads:
        last_checkpoint(checkpoints)
    meet()
    return last_checkpoint(checkpoints)
