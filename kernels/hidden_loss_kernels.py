"""The kernels of `hidden_loss`: some tokens of one item a program, and the sum over the programs."""

from __future__ import annotations

import torch

from kernels.ahead import Build
from kernels.arguments import rows_of
from kernels.runtime import jit, tl, triton
from kernels.tuning import Sizes, Tunable

PARTS = 2  # mse, cosine
WIDEST = 8192  # values of a token that fit into registers
EPSILON = 1e-8  # as in torch's cosine_similarity


def launch(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor | None,
    loss: torch.Tensor,
    parts: torch.Tensor,
    gradient: torch.Tensor,
    mse_weight: float,
    cosine_weight: float,
) -> None:
    """Fill loss [], parts [2] and gradient [B, L, H], or [0] for none, from [B, L, H] and a mask bool [B, L]."""
    items, tokens, width = student.shape
    mine, theirs = rows_of(student), rows_of(teacher)
    strides = mine.stride(0), theirs.stride(0)
    sizes = TOKENS.sizes(student, H=width, ALIGN=_alignment(width, *strides))
    chunks = triton.cdiv(tokens, sizes["CHUNK"])
    partial = torch.empty(items * chunks, PARTS, dtype=torch.float32, device=student.device)
    if programs := items * chunks:
        _tokens_kernel[(programs,)](
            mine, theirs, mine if mask is None else mask.contiguous().view(torch.uint8), gradient, partial, tokens,
            mse_weight, cosine_weight, chunks, H=width, S_STRIDE=strides[0], T_STRIDE=strides[1],
            MASKED=mask is not None, COSINE=cosine_weight != 0, GRADIENT=gradient.numel() > 0, EPSILON=EPSILON, **sizes,
        )  # fmt: skip
    _sum_kernel[(1,)](partial, loss, parts, programs, mse_weight, cosine_weight, BLOCK=1024)


def builds() -> list[Build]:
    """The widths of MiniLM and BERT; maps of a convolutional network, without a mask; a width that is no multiple."""
    asked = [(384, True, 0.0), (768, True, 1.0), (1024, False, 0.0), (8192, True, 1.0), (49, False, 0.0)]
    found = [build for dtype in ("bf16", "fp32") for each in asked for build in _builds(dtype, *each)]
    sums = dict.fromkeys(("partial_ptr", "loss_ptr", "parts_ptr"), "*fp32") | {"programs": "i32"}
    sums |= {"mse_weight": "fp32", "cosine_weight": "fp32"}
    return [*found, Build("hidden_loss sum", _sum_kernel, sums, {"BLOCK": 1024}, vector_loads=False)]


def _sizes(H: int, ALIGN: int) -> Sizes:
    """Chosen by arithmetic, measured on no GPU: some 16 values a thread in flight, and no spilled register."""
    block = 1 << (H - 1).bit_length()
    rows = max(1, min((2048 if ALIGN == 8 else 1024) // block, 32))
    warps = 4 if rows * block <= 2048 else min(block // 512, 16)
    return {"ROWS": rows, "CHUNK": max(32, rows), "BLOCK": block, "num_warps": warps}


def _tried(H: int, ALIGN: int) -> list[Sizes]:
    block = 1 << (H - 1).bit_length()
    return [
        {"ROWS": rows, "CHUNK": chunk, "BLOCK": block, "num_warps": warps}
        for rows in (1, 2, 4, 8, 16, 32)
        for chunk in (16, 32, 64)
        for warps in (4, 8, 16)
        if rows <= chunk and 4 <= rows * block // (32 * warps) <= 32
    ] or [_sizes(H, ALIGN)]


TOKENS = Tunable("hidden_loss tokens", _sizes, _tried)
TUNABLES = (TOKENS,)


@jit
def _tokens_kernel(
    student_ptr, teacher_ptr, mask_ptr, gradient_ptr, partial_ptr, tokens, mse_weight, cosine_weight, chunks,
    H: tl.constexpr, S_STRIDE: tl.constexpr, T_STRIDE: tl.constexpr, MASKED: tl.constexpr, COSINE: tl.constexpr,
    GRADIENT: tl.constexpr, EPSILON: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    item, first = program // chunks, (program % chunks) * CHUNK
    item_row = item.to(tl.int64) * tokens  # int64: B * L * H may pass 2^31
    column = tl.arange(0, BLOCK)

    # 1. how many tokens the item has: a few bytes, read by each of its programs
    counted = tokens * 1.0
    if MASKED:
        found = tl.zeros([256], dtype=tl.int32)
        for start in range(0, tokens, 256):
            at = tl.arange(0, 256) + start
            found += (tl.load(mask_ptr + item_row + at, mask=at < tokens, other=0) != 0).to(tl.int32)
        counted = tl.maximum(tl.sum(found, axis=0), 1).to(tl.float32)

    # 2. the program's own tokens
    share = 1.0 / counted  # a division of each element would cost more
    mse, cosine = tl.zeros([ROWS], dtype=tl.float32), tl.zeros([ROWS], dtype=tl.float32)
    for start in range(0, CHUNK, ROWS):
        token = tl.arange(0, ROWS) + (first + start)
        real = token < tokens
        kept = real
        if MASKED:
            kept = tl.load(mask_ptr + item_row + token, mask=real, other=0) != 0
        row = (item_row + token)[:, None]
        inside = kept[:, None] & (column < H)[None, :]
        s = tl.load(student_ptr + row * S_STRIDE + column[None, :], mask=inside, other=0.0).to(tl.float32)
        t = tl.load(teacher_ptr + row * T_STRIDE + column[None, :], mask=inside, other=0.0).to(tl.float32)
        apart = s - t
        mse += tl.sum(apart * apart, axis=1)
        gradient = (2.0 * mse_weight / H) * apart
        if COSINE:
            s_long, t_long = tl.sqrt(tl.sum(s * s, axis=1)), tl.sqrt(tl.sum(t * t, axis=1))
            s_norm, t_norm = _at_least(s_long, EPSILON), _at_least(t_long, EPSILON)
            angle = tl.sum(s * t, axis=1) / (s_norm * t_norm)
            cosine += tl.where(kept, 1.0 - angle, 0.0)
            bent = tl.where(s_long > EPSILON, angle / (s_norm * s_norm), 0.0)
            gradient -= cosine_weight * (t * (1.0 / (s_norm * t_norm))[:, None] - bent[:, None] * s)
        if GRADIENT:
            written = real[:, None] & (column < H)[None, :]
            tl.store(gradient_ptr + row * H + column[None, :], gradient * share, mask=written)
    tl.store(partial_ptr + program * 2, tl.sum(mse, axis=0) / (H * counted))
    tl.store(partial_ptr + program * 2 + 1, tl.sum(cosine, axis=0) / counted)


@jit
def _at_least(x, least: tl.constexpr):
    """max(x, least), and NaN where x is: `tl.maximum` would hide it."""
    return tl.where(x < least, least, x)


@jit
def _sum_kernel(partial_ptr, loss_ptr, parts_ptr, programs, mse_weight, cosine_weight, BLOCK: tl.constexpr):
    """The partial sums in a fixed order, so that the loss is the same each time."""
    mse, cosine = tl.zeros([BLOCK], dtype=tl.float32), tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, programs, BLOCK):
        program = tl.arange(0, BLOCK) + start
        mse += tl.load(partial_ptr + program * 2, mask=program < programs, other=0.0)
        cosine += tl.load(partial_ptr + program * 2 + 1, mask=program < programs, other=0.0)
    mse_sum, cosine_sum = tl.sum(mse, axis=0), tl.sum(cosine, axis=0)
    tl.store(loss_ptr, mse_weight * mse_sum + cosine_weight * cosine_sum)
    tl.store(parts_ptr, mse_sum)
    tl.store(parts_ptr + 1, cosine_sum)


def _alignment(*strides: int) -> int:
    """How many elements may be loaded at once, 8 or 1, where rows begin at multiples of these."""
    return 8 if all(stride % 8 == 0 for stride in strides) else 1


def _builds(dtype: str, width: int, masked: bool, cosine_weight: float) -> list[Build]:
    pointers = dict.fromkeys(("student_ptr", "teacher_ptr"), f"*{dtype}")
    pointers |= {"mask_ptr": "*u8" if masked else f"*{dtype}", "gradient_ptr": f"*{dtype}", "partial_ptr": "*fp32"}
    numbers = {"tokens": "i32", "mse_weight": "fp32", "cosine_weight": "fp32", "chunks": "i32"}
    shape: dict[str, float] = {"H": width, "S_STRIDE": width, "T_STRIDE": width}
    shape |= {"MASKED": masked, "COSINE": cosine_weight != 0, "GRADIENT": True, "EPSILON": EPSILON}
    align = _alignment(width)
    name = f"{TOKENS.op} {dtype} H={width}{' masked' if masked else ''}{' cosine' if cosine_weight else ''}"
    return [
        Build.sized(name, _tokens_kernel, pointers | numbers, shape, sizes, vector_loads=align == 8)
        for sizes in TOKENS.committed(dtype, H=width, ALIGN=align)
    ]
