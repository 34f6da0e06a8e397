"""Which variants a recipe makes: the teacher in torch as the baseline, and each model in each precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.quantize.providers import runnable
from compress.recipe import TEACHER, Recipe, Student
from compress.teachers import teachers_of
from serve.manifest import Precision
from train.models import needs_teacher

Role = Literal["teacher", "student", "control"]
BASELINE = "teacher-torch"
HELD_OUT = "held_out"  # the folder of models and packages from before a refit, which never saw validation


@dataclass(frozen=True)
class Variant:
    """One row of the report. `id` names its package, its predictions and its stages."""

    model: str
    role: Role
    precision: Precision
    runtime: Literal["torch", "onnxruntime"] = "onnxruntime"
    taught_by: tuple[str, ...] = (BASELINE,)  # ids of the variants that it learned from, or was exported from

    @property
    def id(self) -> str:
        return f"{self.model}-{self.precision if self.runtime == 'onnxruntime' else 'torch'}"

    @property
    def package(self) -> str:
        """Where its package lies in the run directory."""
        return f"packages/{self.id}"

    @property
    def model_folder(self) -> str:
        """Where its trained model lies in the run directory."""
        if self.model == TEACHER:
            return TEACHER
        return f"teachers/{self.model}" if self.role == "teacher" else f"students/{self.model}"


def baseline() -> Variant:
    """The teacher as users run it today: torch eager, fp32."""
    return Variant(TEACHER, "teacher", "fp32", "torch")


def further_teachers(recipe: Recipe) -> list[Variant]:
    """[[teachers]], measured as the baseline is: for what their students learned from, not to be served."""
    return [Variant(teacher.name, "teacher", "fp32", "torch") for teacher in recipe.teachers]


def packaged_variants(recipe: Recipe) -> list[Variant]:
    """Every variant that becomes a package, fp32 of a model before its other precisions.

    A control is there to be compared with its student, so it gets fp32 only.
    """
    made, _ = runnable(recipe.quantize.precisions, recipe.quantize.provider)
    ordered = sorted(made, key=lambda precision: precision != "fp32")
    variants = [Variant(TEACHER, "teacher", precision) for precision in ordered]
    for student in recipe.students:
        precisions = ordered if student.role == "student" else ordered[:1]
        taught_by = _taught_by(student, recipe)
        variants += [Variant(student.name, student.role, precision, taught_by=taught_by) for precision in precisions]
    return variants


def _taught_by(student: Student, recipe: Recipe) -> tuple[str, ...]:
    """Those whose answers it learned from, and the main teacher where it began with its weights."""
    students = {other.name for other in recipe.students}
    ids = [f"{name}-fp32" if name in students else f"{name}-torch" for name in teachers_of(student)]
    begun = needs_teacher(student.model, student.options) and BASELINE not in ids
    return (*([BASELINE] if begun or not ids else []), *ids)


def parents(variant: Variant) -> list[str]:
    """The variants that this one was made from: the teachers that taught it, or the fp32 graph that was quantized."""
    if variant.runtime == "torch" or (variant.role == "control" and variant.precision == "fp32"):
        return []
    return list(variant.taught_by) if variant.precision == "fp32" else [f"{variant.model}-fp32"]
