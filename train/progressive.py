"""Training that starts small, `fit.grow_images` and `fit.stack`: can these models be trained so?"""

from __future__ import annotations

from serve.errors import UserError
from train.classifier import Classifier
from train.fit_config import FitConfig
from train.image_growth import check_growth
from train.stacking import check_stacking

FEATURES_WITH_STACK = (
    "fit.stack trains some of the layers at first, and distill.features compares all of them with the teacher's"
)


def check_progressive(
    config: FitConfig, classifier: Classifier, teacher: Classifier | None = None, features: bool = False
) -> None:
    """Raise UserError where `classifier`, trained or not, cannot be trained so, or its `teacher` cannot see its images.

    `features`: whether it is to learn from inside the teacher as well.
    """
    if config.stack is not None and features:
        raise UserError(FEATURES_WITH_STACK, "leave out one of the two")
    check_stacking(config, classifier)
    check_growth(config, classifier)
    if teacher is not None:
        check_growth(config, teacher)
