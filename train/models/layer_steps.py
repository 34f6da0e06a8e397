"""What each step of pruning leaves of a transformer: which of its layers, and how many heads and neurons in each.

All of it follows from the teacher's shape and what is asked, whatever the steps before left: the last step's shape does
not depend on their number. Only which heads and neurons these are is found out anew at each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve.errors import UserError
from train.models.channels import width_for
from train.models.narrow import LayerParts
from train.models.teacher_widths import MULTIPLE, WidthOptions

# Of so many layers, counted from 0, the numbers of a few: (few, so many) -> numbers in rising order.
Choose = Callable[[int, int], list[int]]


@dataclass(frozen=True)
class Step:
    """What is left after one step. None: all heads or neurons of the teacher's layers."""

    layers: tuple[int, ...]  # the teacher's numbers of them, in rising order
    heads: int | None
    ffn_width: int | None

    def describe(self) -> str:
        widths = ((self.heads, "heads"), (self.ffn_width, "neurons"))
        parts = [f"{len(self.layers)} layers", *(f"{count} {unit}" for count, unit in widths if count is not None)]
        return ", ".join(parts)


def plan(
    steps: int, taken: Sequence[int], total: int, choose: Choose, options: WidthOptions, whole: LayerParts | None
) -> list[Step]:
    """What is left after each of `steps`, the teacher itself first.

    `taken` of its `total` layers stay to the end, and `choose` says which of the others stay longer; `whole` is one of
    its layers, needed only where they become narrower.
    """
    left = [[layer for layer in range(total) if layer not in taken]]
    gone = len(left[0])
    for step in range(1, steps + 1):
        before = left[-1]
        left.append([before[at] for at in choose(gone - round(gone * step / steps), len(before))])
    return [
        Step(
            layers=tuple(sorted([*taken, *others])),
            heads=None if whole is None else _between(whole.heads, options.heads, step / steps, _head_multiple(whole)),
            ffn_width=None if whole is None else _between(whole.neurons, options.ffn_width, step / steps, MULTIPLE),
        )
        for step, others in enumerate(left)
    ]


def check_plan(make: Callable[[int], list[Step]], steps: int, name: str) -> None:
    """Raise UserError where one of so many steps would cut nothing. `make` gives the plan for a number of steps."""
    if steps == 1 or _cuts(found := make(steps)):
        return
    most = next((fewer for fewer in range(steps - 1, 1, -1) if _cuts(make(fewer))), 1)
    step = next(at for at in range(1, steps + 1) if found[at] == found[at - 1])
    raise UserError(
        f"'{name}': steps = {steps} from {found[0].describe()} to {found[-1].describe()}, but step {step} would cut "
        "nothing",
        f"give at most steps = {most}" if most > 1 else "leave out steps and recovery_epochs",
    )


def _cuts(found: Sequence[Step]) -> bool:
    """Whether each step takes something away."""
    return all(one != other for one, other in pairwise(found))


def _head_multiple(layer: LayerParts) -> int:
    """Heads come in such numbers that all together are a multiple of what the runtime likes."""
    return MULTIPLE // math.gcd(MULTIPLE, layer.head_size)


def _between(whole: int, asked: int | None, part: float, multiple: int) -> int | None:
    """A width that far on the way to what is `asked`, which is a multiple itself, rounded as it must be."""
    if asked is None or part == 1:
        return asked
    return width_for(1 - (1 - asked / whole) * part, whole, multiple)
