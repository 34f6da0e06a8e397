"""int8 matrix product with everything that follows it: scales, bias, and GELU or the residual, in one launch.

    y = f(x_scale * weight_scale * sum_k x[m, k] weight[n, k] + bias) + residual     f nothing or GELU

x int8 [..., K] with a scale fp32 [...] a row (from `quantize_rows` or a producer that quantizes its output), weight
int8 [N, K] as torch.nn.Linear stores it, with a scale fp32 [N] each, bias [N], residual and y [..., N]. Sums are exact,
in int32 (W8A8 with scales a row and a column: Dettmers et al. 2022, arXiv 2208.07339). Bound by the tensor cores where
there are many rows; the product never goes to memory in int32. For inference: it has no gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.ahead import Build
from kernels.arguments import rows_of
from kernels.gelu import gelu
from kernels.runtime import jit, runs_triton, tl, triton
from kernels.tuning import Sizes, Tunable

Activation = Literal["none", "gelu", "gelu_tanh"]
ACTIVATIONS = ("none", "gelu", "gelu_tanh")
OUTPUTS = (torch.bfloat16, torch.float16, torch.float32)
LONGEST = 131_071  # of a sum: 2^31 / (128 * 128), beyond which int32 could overflow
FEW = 108  # tiles: an A100 has so many SMs
GROUP = 8  # rows of tiles that are computed side by side, so that their weights are still in the L2 cache


def int8_gemm(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Activation = "none",
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """y [..., N] of `dtype` (bfloat16, float16 or float32) of the module's formula.

    bias has `dtype` or is fp32, residual has `dtype`. A row whose scale is NaN is NaN. Raises ValueError for what does
    not fit, and for an activation together with a residual, of which no layer has both.
    """
    return _multiply(x, x_scale, weight, weight_scale, bias, residual, activation, dtype)


def reference(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Activation = "none",
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """The same in plain PyTorch: sums in fp64, which are exact, the rest in fp32."""
    y = (x.double() @ weight.double().t()).float() * x_scale.unsqueeze(-1) * weight_scale
    y = y if bias is None else y + bias.float()
    if activation != "none":
        y = torch.nn.functional.gelu(y, approximate="tanh" if activation == "gelu_tanh" else "none")
    return (y if residual is None else y + residual.float()).to(dtype)


def builds() -> list[Build]:
    """A batch of 256 texts of 128 tokens through MiniLM's and BERT's layers, a small one, and an odd shape."""
    kinds = [
        (32768, 1536, 384, "gelu", False, "bf16"),
        (32768, 384, 1536, "none", True, "bf16"),
        (32768, 3072, 768, "gelu", False, "bf16"),
        (32768, 3072, 768, "gelu_tanh", False, "fp16"),
        (32768, 768, 3072, "none", True, "fp16"),
        (32768, 2304, 768, "none", False, "bf16"),
        (128, 1536, 384, "gelu", False, "bf16"),
        (16, 768, 768, "none", True, "bf16"),
    ]
    return [
        _build(*kind, chosen)
        for kind in kinds
        for chosen in TILES.committed("i8", M=kind[0], N=kind[1], K=kind[2])
    ]  # fmt: skip


def _sizes(M: int, N: int, K: int) -> Sizes:
    """Tiles of 128 x 128 with 128 columns of K at a time; smaller ones where they are too few for every SM."""
    rows, columns = (min(max(1 << (size - 1).bit_length(), least), 128) for size, least in ((M, 16), (N, 32)))
    while max(rows, columns) > 64 and -(-M // rows) * -(-N // columns) < FEW:
        rows, columns = (rows // 2, columns) if rows >= columns else (rows, columns // 2)
    depth = min(max(1 << (K - 1).bit_length(), 32), 128)
    warps = 8 if rows * columns >= 128 * 128 else 4
    return {"BLOCK_M": rows, "BLOCK_N": columns, "BLOCK_K": depth, "num_warps": warps, "num_stages": 4}


def _tried(M: int, N: int, K: int) -> list[Sizes]:
    tiles = (
        (128, 128),
        (128, 256),
        (256, 128),
        (64, 128),
        (128, 64),
        (64, 64),
        (64, 256),
        (32, 64),
        (16, 64),
        (16, 128),
    )
    return [
        {"BLOCK_M": rows, "BLOCK_N": columns, "BLOCK_K": depth, "num_warps": warps, "num_stages": stages}
        for rows, columns in tiles
        if rows <= max(2 * M, 16) and columns <= max(2 * N, 64)
        for depth in (64, 128)
        for warps in (4, 8)
        for stages in (3, 4)
        if (rows + columns) * depth * stages <= 160_000 and 16 <= rows * columns // (32 * warps) <= 128
    ]


TILES = Tunable("int8_gemm", _sizes, _tried)
TUNABLES = (TILES,)


@torch.library.custom_op("limbeck::int8_gemm", mutates_args=())
def _multiply(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, residual: Tensor | None,
    activation: str, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    _check(x, x_scale, weight, weight_scale, bias, residual, activation, dtype)
    if not runs_triton(x):
        return reference(x, x_scale, weight, weight_scale, bias, residual, activation, dtype)  # type: ignore[arg-type]
    y = torch.empty(*x.shape[:-1], weight.shape[0], dtype=dtype, device=x.device)
    if y.numel():
        rows, weights = rows_of(x), rows_of(weight)
        (count, inner), columns = rows.shape, weights.shape[0]
        chosen = TILES.sizes(x, M=count, N=columns, K=inner)
        tiles = triton.cdiv(count, chosen["BLOCK_M"]) * triton.cdiv(columns, chosen["BLOCK_N"])
        added = y.view(-1, columns) if residual is None else rows_of(residual)
        _kernel[(tiles,)](
            *(rows, x_scale.contiguous(), weights, weight_scale.contiguous()),
            *(weight_scale if bias is None else bias.contiguous(), added, y),
            *(count, rows.stride(0), weights.stride(0), added.stride(0)),
            N=columns, K=inner, BIAS=bias is not None, RESIDUAL=residual is not None,
            GELU=activation != "none", TANH=activation == "gelu_tanh", GROUP=GROUP, **chosen,
        )  # fmt: skip
    return y


@_multiply.register_fake
def _(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, residual: Tensor | None,
    activation: str, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return torch.empty(*x.shape[:-1], weight.shape[0], dtype=dtype, device=x.device)


@jit
def _kernel(
    x_ptr, x_scale_ptr, weight_ptr, weight_scale_ptr, bias_ptr, residual_ptr, y_ptr,
    count, stride, weight_stride, residual_stride,
    N: tl.constexpr, K: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, GELU: tl.constexpr,
    TANH: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # 1. which tile: GROUP rows of tiles go through all columns together
    tiles_m, tiles_n = tl.cdiv(count, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = tl.program_id(0) // (GROUP * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP, GROUP)
    within = tl.program_id(0) % (GROUP * tiles_n)
    row = (group * GROUP + within % height).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # int64: M * K may pass 2^31
    column = (within // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    # 2. the sum; what lies beyond the last row or column is another's, is summed too and never stored
    inner = tl.arange(0, BLOCK_K)
    x_at = x_ptr + tl.minimum(row, count - 1)[:, None] * stride + inner[None, :]
    weight_at = weight_ptr + tl.minimum(column, N - 1)[None, :].to(tl.int64) * weight_stride + inner[:, None]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
    for first in range(0, K, BLOCK_K):
        if K % BLOCK_K:
            x = tl.load(x_at, mask=(inner < K - first)[None, :], other=0)
            weight = tl.load(weight_at, mask=(inner < K - first)[:, None], other=0)
        else:
            x, weight = tl.load(x_at), tl.load(weight_at)
        total = tl.dot(x, weight, total)
        x_at += BLOCK_K
        weight_at += BLOCK_K
    # 3. back to numbers, and what follows
    in_row = column < N
    x_scale = tl.load(x_scale_ptr + row, mask=row < count, other=0.0)
    weight_scale = tl.load(weight_scale_ptr + column, mask=in_row, other=0.0)
    y = total.to(tl.float32) * x_scale[:, None] * weight_scale[None, :]
    if BIAS:
        y += tl.load(bias_ptr + column, mask=in_row, other=0.0).to(tl.float32)[None, :]
    if GELU:
        y = gelu(y, TANH)
    inside = (row < count)[:, None] & in_row[None, :]
    if RESIDUAL:
        at = residual_ptr + row[:, None] * residual_stride + column[None, :]
        y += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + row[:, None] * N + column[None, :], y, mask=inside)


def _check(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, residual: Tensor | None,
    activation: str, dtype: torch.dtype,
) -> None:  # fmt: skip
    if dtype not in OUTPUTS:
        raise ValueError(f"int8_gemm: dtype is {_name(dtype)}: expected one of {', '.join(map(_name, OUTPUTS))}")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"int8_gemm: activation is {activation!r}: expected one of {', '.join(map(repr, ACTIVATIONS))}"
        )
    if activation != "none" and residual is not None:
        raise ValueError(f"int8_gemm: activation {activation!r} and a residual: expected one of them at most")
    if x.ndim < 1 or weight.ndim != 2 or not weight.numel() or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"int8_gemm: x is {tuple(x.shape)} and weight {tuple(weight.shape)}: expected [..., K] and [N, K]"
        )
    columns, inner = weight.shape
    if inner > LONGEST:
        raise ValueError(f"int8_gemm: K is {inner:,}: sums of more than {LONGEST:,} products may overflow int32")
    fp32, sums = (torch.float32,), (dtype, torch.float32)
    expected = {
        "x": (x, x.shape, (torch.int8,)),
        "weight": (weight, weight.shape, (torch.int8,)),
        "x_scale": (x_scale, x.shape[:-1], fp32),
        "weight_scale": (weight_scale, (columns,), fp32),
        "bias": (bias, (columns,), sums),
        "residual": (residual, (*x.shape[:-1], columns), (dtype,)),
    }
    for name, (tensor, shape, dtypes) in expected.items():
        if tensor is None:
            continue
        found = f"{_name(tensor.dtype)} {tuple(tensor.shape)} on {tensor.device}"
        if tensor.dtype not in dtypes or tensor.shape != shape or tensor.device != x.device:
            wanted = f"{' or '.join(_name(each) for each in dict.fromkeys(dtypes))} {tuple(shape)} on {x.device}"
            raise ValueError(f"int8_gemm: {name} is {found}: expected {wanted}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _build(M: int, N: int, K: int, activation: str, residual: bool, written: str, chosen: Sizes) -> Build:
    pointers = {"x_ptr": "*i8", "x_scale_ptr": "*fp32", "weight_ptr": "*i8", "weight_scale_ptr": "*fp32"}
    pointers |= {f"{name}_ptr": f"*{written}" for name in ("bias", "residual", "y")}
    strides = ("stride", "weight_stride", "residual_stride")
    shape = {"N": N, "K": K, "BIAS": True, "RESIDUAL": residual, "GROUP": GROUP}
    return Build.sized(
        f"int8_gemm {written} M={M} N={N} K={K} {activation}{' residual' * residual}",
        _kernel,
        pointers | {"count": "i32", **dict.fromkeys(strides, "i32")},
        shape | {"GELU": activation != "none", "TANH": activation == "gelu_tanh"},
        chosen,
        mma=True,
        divisible=strides,
    )
