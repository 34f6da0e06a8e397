"""`fit.augment` of a recipe: new views of the training items, of images (`images`) or texts (`texts`)."""

from __future__ import annotations

from serve.manifest import Task
from train.augment.images import ImageAugment
from train.augment.texts import TextAugment

__all__ = ["AugmentConfig"]


class AugmentConfig(ImageAugment, TextAugment):
    """[teacher.fit.augment], [students.fit.augment]: nothing by default."""

    @property
    def is_active(self) -> bool:
        """Whether anything is augmented at all."""
        return bool(self.active())

    def active(self) -> list[str]:
        """The names of what is asked for."""
        return [name for name in type(self).model_fields if getattr(self, name) != _NOTHING[name]]

    def unfit_for(self, task: Task) -> list[str]:
        """The names of what is asked for and cannot be done to items of this task."""
        fitting = ImageAugment if task == "image" else TextAugment
        return [name for name in self.active() if name not in fitting.model_fields]


_NOTHING = AugmentConfig().model_dump()
