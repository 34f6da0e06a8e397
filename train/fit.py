"""Fit a classifier, with or without a teacher: the same path for both, on `transformers.Trainer`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from transformers import PrinterCallback, TrainerCallback

from serve.errors import UserError
from train.arguments import scored_together, training_arguments, training_device
from train.augment import AugmentConfig
from train.augment.augmenter import text_augmenter
from train.checkpoints import CHECKPOINTS, last_checkpoint
from train.classifier import Classifier, save_classifier
from train.compiled import compiled
from train.curves import Curves
from train.distill import DistillConfig
from train.distill.ensemble import combined
from train.distill.lesson import Lesson, check_labels
from train.epochs import EpochRecord, OnEpoch, Until, best_of, epoch_callbacks, epoch_records
from train.fit_config import FitConfig
from train.image_growth import growth_of
from train.inputs import Inputs, TextInputs
from train.layers import Unfreeze, freeze
from train.lone_items import check_lone_items
from train.losses import LabelLoss
from train.memory import within_memory
from train.precision import Arithmetic, choose_arithmetic
from train.processes import OwnDropout, meet, note_on_norms, together, world
from train.progressive import check_progressive
from train.recompute import recomputing
from train.stacking import Stacking
from train.traced import TracedView
from train.trainer import ClassifierTrainer
from train.views import View, WorkerError

_TEACHER_BATCH = 256


class Refit(BaseModel):
    """A second training from the same start on more items (`fit.final_refit`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int  # how many there were: the best of the first training
    items: int
    items_before: int  # of the first training


class FitResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: list[EpochRecord]  # none where a model was taken as it is, or nothing was held out
    best_epoch: int  # the one whose weights were kept: highest validation accuracy, the earliest of equals
    params: int
    macs: int
    precision: str = "fp32"  # of the multiplications while training
    precision_why: str = ""
    notes: tuple[str, ...] = ()  # what a reader of the figures should know
    # As it was trained: smaller batches than in the recipe where memory ran out and fit.shrink_on_oom is set.
    batch_size: int | None = None
    accumulation: int | None = None
    refit: Refit | None = None  # what was trained again once `best_epoch` was known; None: nothing was
    processes: int = 1  # which shared each batch


@dataclass(frozen=True)
class Teaching:
    """A trained teacher, how a student learns from it, and the training split as the teacher sees it.

    `others` are further teachers, in the order of `config.teachers`, each with the split as it sees it.
    """

    teacher: Classifier
    config: DistillConfig
    train: Inputs
    others: tuple[tuple[Classifier, Inputs], ...] = ()

    @property
    def teachers(self) -> tuple[tuple[Classifier, Inputs], ...]:
        return ((self.teacher, self.train), *self.others)


def fit(
    classifier: Classifier,
    config: FitConfig,
    train: Inputs,
    validation: Inputs | None,
    seed: int,
    folder: Path,
    teaching: Teaching | None = None,
    on_epoch: OnEpoch | None = None,
    say: Callable[[str], None] = lambda _: None,
    guide: Classifier | None = None,
    origins: Sequence[str] | None = None,
    curves: Path | None = None,
    until: int | None = None,
) -> FitResult:
    """Train `classifier`, keep its best epoch on validation, and save it into `folder`.

    Checkpoints lie in `folder`/checkpoints after each epoch; a call that finds some there goes on from the last
    and ends with the same weights as one that was never interrupted. They are deleted at the end.
    `guide` is the teacher where text augmentation alone asks it: a control sees the views that its student sees.
    `origins` say where each training item came from; TensorBoard's curves are written into `curves`.
    With `until`, then without `validation`, the weights after that epoch are kept; the learning rates on the way are
    those of all `config.epochs`. Raises UserError when the loss stops being a number, when memory runs out, and where
    nothing is to be trained that should be.
    """
    assert (validation is None) == (until is not None), "without validation the epoch to keep must be known"
    if config.epochs == 0:
        return _as_it_is(classifier, folder)
    if config.batch_size == world().size:
        check_lone_items(classifier, min(config.grow_images, default=1.0))
    if teaching is None:
        check_progressive(config, classifier)
    else:
        for teacher, _ in teaching.teachers:
            check_progressive(config, classifier, teacher, features=bool(teaching.config.features))
            check_labels(classifier, teacher)
        teaching.config.check_accumulation(config.accumulation)
    arithmetic = choose_arithmetic(config.precision, classifier, classifier.macs(), training_device())
    say(f"training in {arithmetic.precision}: {arithmetic.why}")
    job = _Job(
        classifier,
        arithmetic,
        train,
        validation,
        seed,
        folder,
        teaching,
        on_epoch,
        say,
        guide,
        origins,
        curves,
        until,
    )
    start = {name: value.clone() for name, value in classifier.state_dict().items()} if config.shrink_on_oom else {}

    def attempt(config: FitConfig) -> FitResult:
        if start:
            classifier.load_state_dict(start)
        freeze(config, classifier.requires_grad_(True))
        return _train(job, config)

    result = within_memory(config, attempt, say)
    classifier.requires_grad_(True)
    return result


@dataclass(frozen=True)
class _Job:
    """What `fit` was asked for, without the settings: these change where memory runs out."""

    classifier: Classifier
    arithmetic: Arithmetic
    train: Inputs
    validation: Inputs | None
    seed: int
    folder: Path
    teaching: Teaching | None
    on_epoch: OnEpoch | None
    say: Callable[[str], None]
    guide: Classifier | None
    origins: Sequence[str] | None
    curves: Path | None
    until: int | None


def _train(job: _Job, config: FitConfig) -> FitResult:
    """`fit` with these settings."""
    classifier, teaching = job.classifier, job.teaching
    label_loss = LabelLoss(config, classifier.spec.labels, job.train.labels)
    checkpoints = job.folder / CHECKPOINTS
    last = _last(checkpoints)
    # Without augmentation the teacher's answers are the same in every epoch. With it, it must see the same view as the
    # student ("consistent teaching", Beyer et al. 2021, arXiv 2106.05237), so it is asked for each batch.
    changing = config.augment.is_active or bool(config.grow_images)
    fixed = teaching is not None and not changing and not teaching.config.features
    taught = _answers(teaching) if teaching is not None and fixed else None
    lesson = _lesson(classifier, teaching, fixed) if teaching is not None else None
    teachers = () if teaching is None else teaching.teachers
    guide = job.guide or (teaching.teacher if teaching else None)  # the recipe's teacher, whoever teaches
    view = TracedView(
        job.train,
        config.augment,
        job.seed,
        taught,
        [_as_the_teacher(job.train, seen) for _, seen in teachers],
        text_augmenter(
            config.augment, job.train, guide, classifier, job.seed, job.say, [teacher for teacher, _ in teachers]
        ),
        len(classifier.spec.labels),
        growth_of(config),
    )
    curves = None if job.curves is None else Curves(job.curves)
    stacking = None if config.stack is None else Stacking(classifier, config.stack)
    try:
        trainer = ClassifierTrainer(
            model=classifier,
            args=training_arguments(config, job.arithmetic, job.train, job.seed, checkpoints, last, job.until),
            train_dataset=view,
            eval_dataset=None if job.validation is None else View(job.validation, AugmentConfig(), job.seed),
            callbacks=[*([] if stacking is None else [stacking]), *_callbacks(job, config)],
            config=config,
            label_loss=label_loss,
            lesson=lesson,
            origins=job.origins,
            curves=curves,
        )
        trainer.remove_callback(PrinterCallback)  # it prints each log; `on_epoch` tells them better
        try:
            with _switches(config, classifier):
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
        finally:  # off with autocast: it is exported next
            trainer.accelerator.unwrap_model(classifier, keep_fp32_wrapper=False)
    except WorkerError as error:
        raise error.told() from None
    finally:
        if lesson is not None:
            lesson.end()
        if curves is not None:
            curves.close()
        if stacking is not None:
            stacking.close()
    records = epoch_records(trainer.state)
    if job.until is not None:
        trainer.take_average()
    classifier.to("cpu")
    meet()  # all have read the best checkpoint
    if world().leads:
        save_classifier(classifier, job.folder)
        shutil.rmtree(checkpoints)
    return FitResult(
        epochs=records,
        best_epoch=best_of(records[config.growing_epochs :]).epoch if job.until is None else job.until,
        params=classifier.params,
        macs=classifier.macs(),
        precision=job.arithmetic.precision,
        precision_why=job.arithmetic.why,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        processes=world().size,
        notes=note_on_norms(classifier),
    )


@contextmanager
def _switches(config: FitConfig, classifier: Classifier) -> Iterator[None]:
    """What changes how the network is run while it is trained, and nothing of what it learns."""
    with ExitStack() as switches:
        if config.gradient_checkpointing:
            switches.enter_context(recomputing(classifier))
        if config.compile:
            switches.enter_context(compiled(classifier.network, training_device()))
        yield


def _callbacks(job: _Job, config: FitConfig) -> list[TrainerCallback]:
    own: list[TrainerCallback] = [OwnDropout()]
    if config.unfreeze is not None:
        own.append(Unfreeze(job.classifier, config.unfreeze))
    if job.until is not None:
        return [*own, Until(job.until, job.say)]
    return [*own, *epoch_callbacks(config, job.on_epoch)]


def _last(checkpoints: Path) -> Path | None:
    """The checkpoint to go on from. The first process looks alone at first, since broken ones are deleted."""
    if world().leads:
        last_checkpoint(checkpoints)
    meet()
    return last_checkpoint(checkpoints)


def _lesson(classifier: Classifier, teaching: Teaching, fixed: bool) -> Lesson:
    """`fixed`: all answers are known, and nobody is asked any more."""
    first = None if fixed else teaching.teacher
    return Lesson(classifier, first, teaching.config, [teacher for teacher, _ in teaching.others])


def _as_the_teacher(train: Inputs, seen: Inputs) -> Inputs | None:
    """The training split as a teacher prepares it, `seen`, where that is another way than the student's."""
    if not isinstance(train, TextInputs) or not isinstance(seen, TextInputs):
        return None
    return seen if seen.fingerprint() != train.fingerprint() else None


def _as_it_is(classifier: Classifier, folder: Path) -> FitResult:
    if classifier.untrained is not None:
        raise UserError(
            f"fit.epochs = 0 takes '{classifier.spec.model}' as it is, but it was never trained for these data: "
            f"{classifier.untrained}",
            "set fit.epochs to 1 or more, or name a model whose id2label in config.json is exactly the data's labels "
            "(where only the names differ, rename them there)",
        )
    if world().leads:
        save_classifier(classifier, folder)
    return FitResult(epochs=[], best_epoch=0, params=classifier.params, macs=classifier.macs())


@torch.inference_mode()
def _answers(teaching: Teaching) -> np.ndarray:
    """The teachers' logits, combined, for the whole training split: float32 [N, K]."""
    answers = [torch.from_numpy(_answers_of(teacher, inputs)) for teacher, inputs in teaching.teachers]
    return combined(answers, teaching.config).numpy()


def _answers_of(teacher: Classifier, inputs: Inputs) -> np.ndarray:
    """One teacher's logits: float32 [N, K]. Texts go by length, to pad little."""
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    here = world()
    device = training_device()
    teacher = teacher.to(device).eval()
    answers = np.zeros((len(inputs), len(teacher.spec.labels)), dtype=np.float32)
    batch = scored_together(inputs, _TEACHER_BATCH)
    for at in range(here.rank * batch, len(order), here.size * batch):  # each process asks for its own
        rows = order[at : at + batch]
        answers[rows] = teacher(torch.from_numpy(inputs.gather(rows)).to(device)).float().cpu().numpy()
    return together(answers)
