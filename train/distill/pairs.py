"""Which layers or stages of student and teacher are compared."""

from __future__ import annotations

from serve.errors import UserError
from train.distill.config import FeatureConfig

Pairs = list[tuple[int, int]]  # of the student and of the teacher, counted from 0


def chosen_pairs(feature: FeatureConfig, default: Pairs, ours: int, theirs: int, unit: str) -> Pairs:
    """The pairs that a recipe wants: the `default` ones, its last, or those it names.

    Raises UserError where it names one that is not among `ours` of the student or `theirs` of the teacher; `unit` is
    what they are called.
    """
    if feature.layers == "all":
        return default
    if feature.layers == "last":
        return default[-1:]
    for mine, its in feature.layers:
        for who, at, count in (("student", mine, ours), ("teacher", its, theirs)):
            if at >= count:
                raise UserError(
                    f"[[students.distill.features]] loss = '{feature.loss}' pairs {unit} [{mine}, {its}], but the "
                    f"{who} has {count} {unit}",
                    f"{unit} are counted from 0: give the {who} 0 to {count - 1}",
                )
    return list(feature.layers)
