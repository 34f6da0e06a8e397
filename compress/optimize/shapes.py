"""Latency and size of a student before it is trained: a network of that shape, exported and quantized as it will be.

Neither depends on what the weights are, so a student that cannot meet a limit on them is never trained.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.environment import EXPORTING, hardware, versions
from compress.optimize.timing import Timed, best_setting, time_packages
from compress.packaging import make_package
from compress.recipe import Student
from compress.stages.context import RunContext
from compress.stages.fitting import wanted_by
from compress.teachers import seed_of
from compress.variants import Variant
from serve.errors import LimbeckError
from serve.manifest import GraphLevel
from train.classifier import ModelConfig, new_classifier
from train.inputs import Inputs
from train.models import in_one_step, origin

_PROBES, _CALIBRATION = 8, 32  # items: enough to make a package, not to judge one


class Shape(BaseModel):
    """What is known of a student before training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: int
    macs: int
    sizes: dict[str, int]  # bytes, by precision; without those that cannot be made of it
    timings: dict[str, list[Timed]]  # by precision

    def fastest(self) -> tuple[str, Timed]:
        """The precision with the lowest latency at its best setting, and that."""
        best = {precision: best_setting(timed) for precision, timed in self.timings.items()}
        precision = min(best, key=lambda name: (best[name].relative, self.sizes[name]))
        return precision, best[precision]


def measure_shape(
    run: RunContext,
    student: Student,
    reference: Path,
    precisions: tuple[str, ...],
    threads: tuple[int, ...],
    levels: tuple[GraphLevel, ...],
    samples: int,
) -> Shape:
    """The shape of a student of the run's recipe, a stage of its own. `reference` is the teacher's fp32 package."""
    config = _last_step(student)
    inputs = {
        "model": config,
        "teacher": run.rundir.digest("teacher"),
        "reference": run.rundir.digest("packages/teacher-fp32"),
        "precisions": precisions,
        "quantize": run.recipe.quantize.model_dump(mode="json", exclude={"precisions"}, exclude_defaults=True),
        "threads": threads,
        "levels": levels,
        "samples": samples,
        "hardware": hardware(),
        "exporters": versions(EXPORTING),
        "origin": origin(config.model, config.options),
    }

    def work(_: Path) -> Shape:
        teacher = run.classifier("teacher")
        classifier = new_classifier(config, wanted_by(run, seed_of(run.recipe, student), teacher)).eval()
        items = run.data.splits["validation"].content
        calibration = _First(run.inputs("calibration", classifier), _CALIBRATION)
        with tempfile.TemporaryDirectory() as folder:
            packages: dict[str, Path] = {}
            sizes: dict[str, int] = {}
            for precision in precisions:
                variant = Variant(student.name, "student", precision)  # type: ignore[arg-type]
                place, fp32 = Path(folder) / precision, packages.get("fp32")
                try:
                    made = make_package(
                        variant, classifier, fp32, calibration, items[:_PROBES], {}, place, run.recipe.quantize
                    )
                except LimbeckError:
                    if fp32 is None:
                        raise
                    continue  # its other precisions may do; once it is trained, this one says why it cannot be made
                packages[precision], sizes[precision] = place, made.size_bytes
            timings = time_packages(packages, reference, items, threads, levels, samples, run.recipe.seed)
        return Shape(params=classifier.params, macs=classifier.macs(), sizes=sizes, timings=timings.packages)

    return run.stage(f"shape/{student.name}", inputs, Shape, work, splits=("train", "calibration", "validation"))


def _last_step(student: Student) -> ModelConfig:
    """The model as it will be in the end, where it is made smaller in steps with training in between."""
    return ModelConfig(model=student.model, options=in_one_step(student.model, student.options))


class _First:
    """The first items of prepared ones."""

    def __init__(self, inputs: Inputs, count: int) -> None:
        self._inputs, self._count = inputs, min(count, len(inputs))
        self.labels = inputs.labels[: self._count]
        self.lengths = None if inputs.lengths is None else inputs.lengths[: self._count]

    def __len__(self) -> int:
        return self._count

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self._inputs.gather(rows)

    def workers(self, batch_size: int) -> int:
        return self._inputs.workers(batch_size)

    def digest(self) -> bytes:
        return b"%d " % self._count + self._inputs.digest()
