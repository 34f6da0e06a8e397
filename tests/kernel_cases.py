"""The shapes, layouts and tolerances that every kernel is tested with in Triton's interpreter.

Rows and columns about the edges of tiles; bf16 as load and store only, since its bf16 arithmetic is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

from kernels.tolerances import ATOL, RTOL

ROWS = (1, 3, 33)
COLUMNS = (1, 2, 10, 197, 768, 1000, 1023, 1024, 4097)

interpreter = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton's interpreter is off")


def strided(make: Callable[..., torch.Tensor], *shape: int) -> torch.Tensor:
    """A tensor whose rows do not touch each other in memory."""
    return make(*shape[:-1], shape[-1] + 5)[..., : shape[-1]]


def transposed(make: Callable[..., torch.Tensor], *shape: int) -> torch.Tensor:
    """A tensor [M, C] whose columns are the adjacent axis."""
    return make(*reversed(shape)).t()


def far(rows: torch.Tensor) -> torch.Tensor:
    """The same three rows 2^30 elements apart, the last beyond what 32 bits count. Untouched pages take no memory."""
    assert len(rows) == 3
    room = torch.empty(2**31 + rows.shape[1], dtype=rows.dtype).as_strided(rows.shape, (2**30, 1))
    return room.copy_(rows)


def close(found: torch.Tensor, expected: torch.Tensor, summed: int = 1) -> None:
    """Assert that `found` is `expected` (fp64) within the tolerance for sums of `summed` terms; in bf16 an ulp."""
    rtol = torch.finfo(torch.bfloat16).eps if found.dtype == torch.bfloat16 else RTOL[found.dtype]
    tolerances = {"rtol": rtol, "atol": ATOL[found.dtype] * max(summed, 1)}
    torch.testing.assert_close(found.double(), expected.double(), **tolerances)
