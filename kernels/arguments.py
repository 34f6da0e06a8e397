"""What the kernels ask of their tensors, and the layout in which they take them."""

from __future__ import annotations

import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # fp64 goes through the references


def check_same(op: str, **tensors: torch.Tensor) -> None:
    """Raise ValueError unless all `tensors` have one floating dtype and are on one device."""
    first, *others = tensors
    dtype, device = tensors[first].dtype, tensors[first].device
    if dtype not in DTYPES:
        raise ValueError(f"{op}: {first} is {_short(dtype)}: expected one of {', '.join(map(_short, DTYPES))}")
    for name in others:
        if tensors[name].dtype != dtype:
            raise ValueError(
                f"{op}: {first} is {_short(dtype)} and {name} {_short(tensors[name].dtype)}: expected one dtype"
            )
        if tensors[name].device != device:
            raise ValueError(f"{op}: {first} is on {device} and {name} on {tensors[name].device}: expected one device")


def check_affine(op: str, x: torch.Tensor, **parameters: torch.Tensor) -> None:
    """Raise ValueError unless `parameters` (weight, bias) have one dtype, x's or fp32, and x's device.

    They stay fp32 where only activations are fp16 or bf16.
    """
    check_same(op, **parameters)
    (name, first), *_ = parameters.items()
    if first.device == x.device and (first.dtype == x.dtype or (first.dtype == torch.float32 and x.itemsize == 2)):
        return
    raise ValueError(
        f"{op}: x is {_short(x.dtype)} on {x.device} and {name} {_short(first.dtype)} on {first.device}: "
        "expected one device, and x's dtype or float32 beside float16 and bfloat16"
    )


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """x [..., C] as [M, C] with adjacent columns: a view if memory allows, else a copy (transposed, stride 0)."""
    rows = x.reshape(-1, x.shape[-1]) if x.numel() else x.new_empty(0, x.shape[-1])
    return rows if rows.stride(1) == 1 and rows.stride(0) >= rows.shape[1] else rows.contiguous()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
