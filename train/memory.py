"""When memory runs out while training: what to tell, or the same updates in smaller micro-batches."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from serve.errors import UserError
from train.fit_config import FitConfig
from train.fit_result import FitResult


def within_memory(
    config: FitConfig, attempt: Callable[[FitConfig], FitResult], say: Callable[[str], None], network: nn.Module
) -> FitResult:
    """`attempt` with `config`, or, where it asks for `shrink_on_oom`, with micro-batches that fit into memory.

    They are halved and their number in an update is doubled, so that the updates stay the same, unless `network` has
    batch norm, which normalises each by itself: then it is said, and noted in what comes out. Raises UserError where
    memory runs out all the same.
    """
    normed = any(isinstance(module, _BatchNorm) for module in network.modules())
    asked = config.batch_size
    while True:
        try:
            result = attempt(config)
            if not normed or config.batch_size == asked:
                return result
            return result.model_copy(update={"notes": (*result.notes, _of_norms(asked, config.batch_size))})
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not is_out_of_memory(error):
                raise
        smaller = _halved(config)
        if not config.shrink_on_oom or smaller is None:
            raise _told(config, smaller)
        same = "the same updates but for batch norm, which sees as many items" if normed else "the same updates"
        say(f"memory ran out: fit.batch_size {config.batch_size} -> {smaller.batch_size}, {same}")
        config = smaller
        gc.collect()
        torch.cuda.empty_cache()


def _of_norms(asked: int, fitted: int) -> str:
    """What a reader of the figures should know of batch norm where micro-batches were halved."""
    return (
        f"memory ran out with micro-batches of {asked:,}: batch norm normalised {fitted:,} items at a time, so with "
        "more memory the same recipe would have given other weights"
    )


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
