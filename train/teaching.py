"""Who teaches a student, and what the teachers say: in advance where they always say the same, or batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from train.arguments import scored_together, training_device
from train.classifier import Classifier
from train.distill import DistillConfig
from train.distill.ensemble import combined
from train.distill.lesson import Lesson
from train.fit_config import FitConfig
from train.inputs import Inputs, TextInputs
from train.known_answers import known_answers
from train.processes import together, world

_TEACHER_BATCH = 256


@dataclass(frozen=True)
class Teaching:
    """A trained teacher, how a student learns from it, and the training split as the teacher sees it.

    `others` are further teachers, in the order of `config.teachers`, each with the split as it sees it. In `known` what
    each answers to a view that does not change is kept, where that is a folder.
    """

    teacher: Classifier
    config: DistillConfig
    train: Inputs
    others: tuple[tuple[Classifier, Inputs], ...] = ()
    known: Path | None = None

    @property
    def teachers(self) -> tuple[tuple[Classifier, Inputs], ...]:
        return ((self.teacher, self.train), *self.others)

    def is_fixed(self, config: FitConfig) -> bool:
        """Whether the teachers' answers are the same in every epoch, so that they need to be asked only once.

        With augmentation they must see the same view as the student ("consistent teaching", Beyer et al. 2021,
        arXiv 2106.05237), and to be looked into they must see each batch.
        """
        return not (config.augment.is_active or config.grow_images or self.config.features)

    def lesson(self, student: Classifier, fixed: bool) -> Lesson:
        """What `student` is taught. `fixed`: all answers are known, and nobody is asked any more."""
        first = None if fixed else self.teacher
        return Lesson(student, first, self.config, [teacher for teacher, _ in self.others])

    def as_seen(self, train: Inputs) -> list[Inputs | None]:
        """`train` as each teacher prepares it, where that is another way than the student's; None where it is not."""
        return [_in_another_way(train, seen) for _, seen in self.teachers]

    @torch.inference_mode()
    def answers(self) -> np.ndarray:
        """The teachers' logits, combined, for the whole training split: float32 [N, K]."""
        answers = [
            torch.from_numpy(known_answers(self.known, teacher, inputs, partial(_answers_of, teacher, inputs)))
            for teacher, inputs in self.teachers
        ]
        return combined(answers, self.config).numpy()


def _in_another_way(train: Inputs, seen: Inputs) -> Inputs | None:
    if not isinstance(train, TextInputs) or not isinstance(seen, TextInputs):
        return None
    return seen if seen.fingerprint() != train.fingerprint() else None


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
