"""When memory runs out while training: what to tell, or the same updates in smaller micro-batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from serve.errors import UserError
from train.fit_config import FitConfig

Result = TypeVar("Result")


def within_memory(config: FitConfig, attempt: Callable[[FitConfig], Result], say: Callable[[str], None]) -> Result:
    """`attempt` with `config`, or, where it asks for `shrink_on_oom`, with micro-batches that fit into memory.

    They are halved and their number in an update is doubled, so that the updates stay the same. Raises UserError where
    memory runs out all the same.
    """
    while True:
        try:
            return attempt(config)
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
        smaller = _halved(config)
        if not config.shrink_on_oom or smaller is None:
            raise _told(config, smaller)
        say(f"memory ran out: fit.batch_size {config.batch_size} -> {smaller.batch_size}, the same updates")
        config = smaller
        gc.collect()
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine: torch has a class for the first alone."""
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
        or "DefaultCPUAllocator: not enough memory" in str(error)
    )


def _halved(config: FitConfig) -> FitConfig | None:
    """Half the micro-batch, twice as often; None where there is no half."""
    if config.batch_size % 2:
        return None
    return config.model_copy(update={"batch_size": config.batch_size // 2, "accumulation": config.accumulation * 2})


def _told(config: FitConfig, smaller: FitConfig | None) -> UserError:
    hint = "set a smaller fit.batch_size and as much more fit.accumulation"
    if smaller is not None:
        hint = f"set fit.batch_size = {smaller.batch_size} and fit.accumulation = {smaller.accumulation}"
    if smaller is not None and not config.shrink_on_oom:
        hint += ", or fit.shrink_on_oom = true"
    return UserError(f"memory ran out while training with fit.batch_size = {config.batch_size}", hint)
