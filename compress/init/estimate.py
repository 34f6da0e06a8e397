"""How long a recipe would take on this machine: a few batches of each of its models, timed here and now.

What a training does beside its batches is a few per cent (`benchmarks.training`); how long packages and measurements
take follows from how long a model takes to answer. So the sum is a guess to a factor of two, not a promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from compress.measure.latency import count_rounds
from compress.recipe import Recipe, Student, Teacher
from compress.teachers import TEACHER
from compress.variants import BASELINE, packaged_variants
from serve.images import ImagePreparer
from train.arguments import training_device
from train.classifier import Classifier, ModelConfig, new_classifier
from train.data import Data, load_data
from train.draft import Wanted
from train.inputs import Inputs, prepare_inputs
from train.models import without_widths
from train.optimizers import new_optimizer
from train.precision import choose_arithmetic

_BATCHES = 4  # timed, after one that is not
_LOOKED_AT = 512  # items at most that are prepared for it
# Of the time that PyTorch takes for one item: what ONNX Runtime takes. Of MiniLM 0.5 in fp32, 0.2 in int8.
_RUNTIME = 0.4
_LOOKS = 3  # at validation in making a package: parity, with itself in batches, and the graph it is compared with
_CONSTANT = 3.0  # seconds of an export or a quantization, whatever the model
# An encoder's graph is tried with rewrites, each timed for a second (compress.graph.timing), in sessions whose opening
# takes as long as there are weights.
_REWRITES, _SESSIONS, _OPENING = 8, 6, 1e-8


@dataclass(frozen=True)
class Pace:
    """Seconds that a model takes for one item: in training, in a large batch without gradients, and alone."""

    learn: float
    answer: float
    alone: float
    trials: float = 0.0  # seconds of trying rewrites of its graph, for each package


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run: each model's training if it takes all its epochs, and all that comes after."""

    models: dict[str, float]
    evidence: float

    @property
    def seconds(self) -> float:
        return sum(self.models.values()) + self.evidence

    def told(self) -> str:
        """`about 9 min on this machine, as busy as it is now: teacher 3 min, layers3 2 min, ...`."""
        parts = [*self.models.items(), ("packages and measurements", self.evidence)]
        whole = minutes(self.seconds)
        told = ", ".join(f"{name} {minutes(part)}" for name, part in parts)
        return f"about {whole} on this machine, as busy as it is now: {told}"


def minutes(seconds: float) -> str:
    """`40 s`, `9 min`, `3.5 h`: as exact as a guess deserves."""
    if seconds < 55:
        return f"{max(1, round(seconds / 5) * 5)} s" if seconds >= 5 else "a few s"
    return f"{round(seconds / 60)} min" if seconds < 95 * 60 else f"{seconds / 3600:.1f} h"


def estimate(recipe: Recipe) -> Estimate:
    """Load the recipe's data, time its models, and add up. Raises UserError for what a run would refuse."""
    recipe = recipe.with_controls()
    data = load_data(recipe.data, recipe.seed, recipe.task)
    paces: dict[str, Pace] = {}
    teacher, paces[TEACHER] = _timed(recipe.teacher, data, recipe.seed, None)
    for student in recipe.students:
        twin = next((one.name for one in recipe.students if one.name in paces and one.model == student.model), None)
        paces[student.name] = paces[twin] if twin else _timed(student, data, recipe.seed, teacher)[1]
    items, held = len(data.splits["train"]), len(data.splits["validation"])
    models = {TEACHER: training(recipe.teacher, paces[TEACHER], items, held)}
    for student in recipe.students:
        asked = _asked(student, items) * paces[TEACHER].answer
        models[student.name] = training(student, paces[student.name], items, held) + asked
    return Estimate(models, _evidence(recipe, paces, held, len(data.splits["test"])))


def training(model: Teacher | Student, pace: Pace, items: int, held: int) -> float:
    """Seconds for all epochs over `items`, each with a look at `held` ones."""
    return model.fit.epochs * (items * pace.learn + held * pace.answer)


def _asked(student: Student, items: int) -> int:
    """How many answers a student takes of its teacher: once for each item, or again for each view of it."""
    if student.distill is None:
        return 0
    again = student.fit.augment.is_active or student.fit.grow_images or student.distill.features
    return items * (student.fit.epochs if again else 1)


def _evidence(recipe: Recipe, paces: dict[str, Pace], held: int, test: int) -> float:
    """Packages, answers on validation and test, and the latencies."""
    batches, threads, samples = recipe.evaluate.batch_sizes, recipe.evaluate.threads, recipe.evaluate.latency_samples
    calls = len(threads) * sum(batch * count_rounds((batch,), (1,), samples) for batch in batches)
    seconds = (calls + held + test) * paces[TEACHER].alone  # of the baseline, in PyTorch
    for variant in packaged_variants(recipe):
        assert variant.id != BASELINE
        alone = paces[variant.model].alone
        trials = 0.0 if recipe.graph.rewrites == "none" else paces[variant.model].trials
        seconds += _CONSTANT + trials + _LOOKS * held * alone + _RUNTIME * alone * (calls + held + test)
    return seconds


def _timed(model: Teacher | Student, data: Data, seed: int, teacher: Classifier | None) -> tuple[Classifier, Pace]:
    """The model as it is before training, and its pace."""
    train = data.splits["train"]
    rows = np.linspace(0, len(train) - 1, min(_LOOKED_AT, len(train))).astype(int)
    few = train.take(np.unique(rows))
    wanted = Wanted(
        task=data.task,
        labels=data.classes,
        seed=seed,
        train=train,
        images=lambda spec: prepare_inputs(few, ImagePreparer(spec)),
        teacher=teacher,
    )
    config = ModelConfig(model=model.model, options=without_widths(model.model, model.options))
    classifier = new_classifier(config, wanted)
    return classifier, pace(classifier, model, prepare_inputs(few, classifier.preparer()))


def pace(classifier: Classifier, model: Teacher | Student, inputs: Inputs) -> Pace:
    """Time `classifier` on `inputs` as it would be trained. Its weights are another's afterwards: it is not to be used.

    Texts go by length, as in training, so that little is padded.
    """
    device, size = training_device(), min(model.fit.batch_size, len(inputs))
    arithmetic = choose_arithmetic(model.fit.precision, classifier, classifier.macs(), device)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(arithmetic.precision)
    classifier.to(device).train()
    optimizer = new_optimizer(model.fit, classifier)
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    starts = np.linspace(0, len(inputs) - size, _BATCHES).astype(int)
    labels = torch.from_numpy(inputs.labels)

    def arithmetics() -> AbstractContextManager[object]:
        return nullcontext() if low is None else torch.autocast(device.type, low)

    def learn(at: int) -> None:
        rows = order[at : at + size]
        with arithmetics():
            logits = classifier(torch.from_numpy(inputs.gather(rows)).to(device))
        torch.nn.functional.cross_entropy(logits.float(), labels[rows].to(device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def answer(at: int) -> None:
        with arithmetics():
            classifier(torch.from_numpy(inputs.gather(order[at : at + size])).to(device)).float().cpu()

    @torch.inference_mode()
    def alone(at: int) -> None:
        classifier(torch.from_numpy(inputs.gather(order[at : at + 1])).to(device)).cpu()

    learned = _seconds(learn, starts) / size
    classifier.eval()
    return Pace(learned, _seconds(answer, starts) / size, _seconds(alone, starts), _trials(classifier))


def _trials(classifier: Classifier) -> float:
    if classifier.spec.network.source != "transformers":
        return 0.0
    return _REWRITES * (1 + _SESSIONS * _OPENING * classifier.params)


def _seconds(work: Callable[[int], None], starts: np.ndarray) -> float:
    """The mean time of `work` over `starts`, the first of them done once before."""
    work(int(starts[0]))
    began = time.perf_counter()
    for at in starts:
        work(int(at))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / len(starts)
