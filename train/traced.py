"""The training split with the row of each item beside it, so that a batch which goes wrong can be named."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from train.views import Batch, View

ROWS = "rows"
IDLE = "idle"  # in a batch whose item counts for nothing
_NAMED = 5


class TracedView(View):
    """A `View` whose batches hold rows int64 [N], into the split.

    A row r given as -1 - r is there so that a process takes part in an update that has no item for it.
    """

    def __getitems__(self, indices: list[int]) -> Batch:
        if indices[0] < 0:
            return {**self.__getitems__([-1 - index for index in indices]), IDLE: torch.ones(1)}
        return {**super().__getitems__(indices), ROWS: torch.as_tensor(indices)}


def name_rows(rows: Sequence[int], origins: Sequence[str] | None) -> str:
    """The first items of a batch by where they came from, or by their rows, and how many more there are."""
    first = [origins[row] if origins is not None else f"training item {row}" for row in rows[:_NAMED]]
    more = len(rows) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
