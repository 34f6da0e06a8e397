"""Which variants a recipe makes: the teacher in torch as the baseline, and each model in each precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.recipe import TEACHER, Recipe
from serve.manifest import Precision

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
        return TEACHER if self.role == "teacher" else f"students/{self.model}"


def baseline() -> Variant:
    """The teacher as users run it today: torch eager, fp32."""
    return Variant(TEACHER, "teacher", "fp32", "torch")


def packaged_variants(recipe: Recipe) -> list[Variant]:
    """Every variant that becomes a package, fp32 of a model before its other precisions.

    A control is there to be compared with its student, so it gets fp32 only.
    """
    ordered = sorted(recipe.quantize.precisions, key=lambda precision: precision != "fp32")
    variants = [Variant(TEACHER, "teacher", precision) for precision in ordered]
    for student in recipe.students:
        precisions = ordered if student.role == "student" else ordered[:1]
        variants += [Variant(student.name, student.role, precision) for precision in precisions]
    return variants


def parents(variant: Variant) -> list[str]:
    """The variants that this one was made from: the teacher that taught it, or the fp32 graph that was quantized."""
    if variant.runtime == "torch" or (variant.role == "control" and variant.precision == "fp32"):
        return []
    return [BASELINE] if variant.precision == "fp32" else [f"{variant.model}-fp32"]
