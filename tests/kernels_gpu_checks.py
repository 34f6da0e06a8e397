"""What the GPU lane asks of every kernel, over the inputs of its benchmark; tiny, they run in the interpreter too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kernels.bench.case import Case, Inputs, error, exact, outputs, runner
from kernels.tolerances import excess

LAST = 2  # rows at the end of a tensor that are looked at alone


def parity(case: Case, dtype: torch.dtype, rows: int, device: torch.device) -> None:
    """Right beside fp64, in `dtype`, for random inputs whose memory was full of NaN before."""
    torch.manual_seed(rows)
    case = replace(case, rows=rows, dtype=dtype)
    inputs = _cast(case.make(rows, device), case, dtype)
    right = exact(case, inputs)
    _poison(inputs)
    found = error(case, runner(case, case.ours, inputs)(), right)
    assert found <= 1, f"{case.title} in {dtype}, {rows} rows: {found:.3g} times the tolerance"


def far_rows(case: Case, rows: int, device: torch.device) -> None:
    """The last of so many rows come out as they do alone: an index of 32 bits would have gone round."""
    torch.manual_seed(0)
    inputs = case.make(rows, device)
    alone = tuple(_last(each, rows).clone() if isinstance(each, Tensor) else each for each in inputs)
    found = _first_rows(outputs(case, runner(case, case.ours, inputs)()), rows)
    few = _first_rows(outputs(case, runner(case, case.ours, alone)()), LAST)
    assert found, "nothing has a row for each row"
    assert len(found) == len(few)
    for whole, part in zip(found, few, strict=True):
        assert excess(whole, part.double()) <= 1, case.title


def same_compiled(case: Case, rows: int, device: torch.device, backend: str = "inductor") -> None:
    """In a graph without a break the operator gives what it gives alone."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    inputs = case.make(rows, device)
    alone = outputs(case, runner(case, case.ours, inputs)())

    def around(*given: Any) -> Any:
        found = case.ours(*given)
        return found if isinstance(found, Tensor) else tuple(found)

    torch._functorch.config.donated_buffer = False
    graph = torch.compile(around, fullgraph=True, dynamic=False, backend=backend)
    for whole, part in zip(outputs(case, runner(case, graph, inputs)()), alone, strict=True):
        assert whole.dtype == part.dtype
        assert excess(whole, part.double(), rows) <= 1, case.title


def quiet(case: Case, rows: int, device: torch.device, guard: Callable[[], Any]) -> None:
    """Within `guard`, which fails where the host waits for the device, a warm operator runs forward and backward."""
    run = runner(case, case.ours, case.make(rows, device))
    run()
    with guard():
        run()


def _cast(inputs: Inputs, case: Case, dtype: torch.dtype) -> Inputs:
    """The floating inputs that have the case's own dtype there, in another."""
    if case.fixed:
        return inputs
    return tuple(
        each.to(dtype) if isinstance(each, Tensor) and each.dtype in (torch.bfloat16, torch.float16) else each
        for each in inputs
    )


def _poison(inputs: Inputs) -> None:
    """Leave memory with NaN where the next allocations come to lie, so that what is not written shows."""
    sizes = [each.shape for each in inputs if isinstance(each, Tensor)]
    device = next(each.device for each in inputs if isinstance(each, Tensor))
    for size in sizes:
        torch.full(size, float("nan"), device=device)


def _last(tensor: Tensor, rows: int) -> Tensor:
    return tensor[-LAST:] if tensor.ndim and len(tensor) == rows else tensor


def _first_rows(tensors: Sequence[Tensor], rows: int) -> list[Tensor]:
    return [each[-LAST:] for each in tensors if each.ndim and len(each) == rows]
