"""How long a site takes: plain, through torch.compile, and fused, on the inputs that it really gets."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kernels.parity import Call, outcome

LOG = logging.getLogger("limbeck.kernels")
Timer = Callable[[Callable[[], object]], float]  # milliseconds of a call
RUNS, WARM_UP = 100, 10
FLUSH_BYTES = 256 * 2**20  # more than the L2 cache of any GPU there is


@dataclass(frozen=True)
class Times:
    """Medians in ms; `compiled_ms` None where torch.compile does not work here."""

    eager_ms: float
    compiled_ms: float | None
    fused_ms: float


_HEAD_START = 2_000_000  # clock cycles, about 1 ms: longer than it takes to queue a layer and its gradients


def measure(
    module: nn.Module,
    fused: Callable[[], AbstractContextManager[Any]],
    call: Call,
    timer: Timer,
    backward: bool,
    compiled: bool,
) -> Times:
    """The times of `module`, and of itself while `fused()`; with `compiled` that one goes through torch.compile too,

    as it will where the whole network is compiled.
    """
    call = call.leaves()
    eager_ms = timer(lambda: outcome(module, call, backward))
    compiled_ms = _compiled_ms(module, call, timer, backward)
    with fused():
        fused_ms = _compiled_ms(module, call, timer, backward) if compiled else None
        if fused_ms is None:
            fused_ms = timer(lambda: outcome(module, call, backward))
    return Times(eager_ms, compiled_ms, fused_ms)


def cuda_timer(run: Callable[[], object]) -> float:
    """The median of 100 runs by CUDA events, each with a cold L2 cache: what it holds between layers is another's."""
    flush = torch.zeros(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
    for _ in range(WARM_UP):
        run()
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(RUNS)]
    for begin, end in events:
        flush.max()  # read and not written: lines to be written back later would be charged to what is timed
        torch.cuda._sleep(_HEAD_START)  # or a small site is timed by how fast Python queues it
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def _compiled_ms(module: nn.Module, call: Call, timer: Timer, backward: bool) -> float | None:
    """Through torch.compile, None where it fails."""
    try:
        module.compile()
        return timer(lambda: outcome(module, call, backward))
    except Exception as error:  # torch has many; a machine without a compiler trains all the same
        LOG.info("torch.compile: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None
    finally:
        module._compiled_call_impl = None
        torch.compiler.reset()
