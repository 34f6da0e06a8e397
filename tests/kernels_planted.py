"""Kernels with one fault each, for the ahead-of-time lane to complain of. The interpreter must be off."""

from __future__ import annotations

from kernels.ahead import Build
from kernels.runtime import jit, tl

_COPY = {"x_ptr": "*bf16", "out_ptr": "*bf16", "count": "i32"}


@jit
def _copy(x_ptr, out_ptr, count, C: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) + tl.arange(0, 1)
    column = tl.arange(0, BLOCK)
    inside = (row < count)[:, None] & (column < C)[None, :]
    x = tl.load(x_ptr + row[:, None] * C + column[None, :], mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(x, axis=1)[:, None]
    tl.store(out_ptr + row[:, None] * C + column[None, :], x * total, mask=inside)


@jit
def _product(a_ptr, b_ptr, out_ptr, SIZE: tl.constexpr):
    line = tl.arange(0, SIZE)
    place = line[:, None] * SIZE + line[None, :]
    a, b = tl.load(a_ptr + place).to(tl.float32), tl.load(b_ptr + place).to(tl.float32)
    tl.store(out_ptr + place, tl.sum(a[:, :, None] * b[None, :, :], axis=1))


@jit
def _counted(x_ptr, out_ptr, count, BLOCK: tl.constexpr):
    row = tl.arange(0, BLOCK)
    last = count.to(tl.int64)  # of a count that is 1, which is a constant, there is no such thing
    tl.store(out_ptr + row, tl.load(x_ptr + row, mask=row < last, other=0.0), mask=row < last)


def _of(name: str, C: int, BLOCK: int, **more) -> Build:
    return Build(f"planted {name}", _copy, _COPY, {"C": C, "BLOCK": BLOCK}, **more)


SOUND = _of("sound", 1024, 1024)
SPILLS = _of("spills", 8192, 8192, num_warps=1)
SCALAR = _of("scalar", 1001, 1024)
_SQUARE = {"a_ptr": "*bf16", "b_ptr": "*bf16", "out_ptr": "*bf16"}
NO_MMA = Build("planted without mma", _product, _SQUARE, {"SIZE": 16}, vector_loads=False, mma=True)
BROKEN = Build("planted broken", _copy, _COPY, {"C": 1000, "BLOCK": 1000})  # tl.arange takes powers of two
NO_ONE = Build("planted no one", _counted, _COPY, {"BLOCK": 1024})
FAULTY = (SPILLS, SCALAR, NO_MMA, BROKEN)
