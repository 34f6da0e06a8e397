"""`fit.augment` of a recipe: new views of the training items, of images (`images`) or texts (`texts`)."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from serve.manifest import Task
from train.augment.images import ImageAugment
from train.augment.texts import TextAugment

__all__ = ["AugmentConfig"]

_ALWAYS_THERE = ("shift", "flip", "delete", "swap")


class AugmentConfig(ImageAugment, TextAugment):
    """[teacher.fit.augment], [students.fit.augment]: nothing by default."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not asked for leaves no trace: what was trained before it was known still counts as the same."""
        fields: dict[str, Any] = dump(self)
        asked = (*_ALWAYS_THERE, *self.active())
        return {name: value for name, value in fields.items() if name in asked}

    @property
    def is_active(self) -> bool:
        """Whether anything is augmented at all."""
        return any(name not in TextAugment.SETTINGS for name in self.active())

    def active(self) -> list[str]:
        """The names of what is asked for."""
        return [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]

    def without_cuts(self) -> AugmentConfig:
        """The same without the changes that take a teacher to label."""
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].default for name in self.CUTTING})

    def unfit_for(self, task: Task) -> list[str]:
        """The names of what is asked for and cannot be done to items of this task."""
        fitting = ImageAugment if task == "image" else TextAugment
        return [name for name in self.active() if name not in fitting.model_fields]
