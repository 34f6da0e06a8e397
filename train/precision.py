"""Which arithmetic training runs in, chosen by what the processor and the model are, and the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from serve.errors import UserError

Wish = Literal["auto", "fp32", "bf16", "fp16"]
Chosen = Literal["fp32", "bf16", "fp16"]
# Below, casting costs what the multiplications win: an MLP of 2x360 gains nothing from bf16, one of 2x1200 a third.
_WORTHWHILE_MACS = 2_000_000


@dataclass(frozen=True)
class Arithmetic:
    """`precision` of the multiplications (weights, optimizer and losses stay fp32), and why it was taken."""

    precision: Chosen
    why: str


def choose_arithmetic(wish: Wish, network: nn.Module, macs: int, device: torch.device) -> Arithmetic:
    """The arithmetic for a network of so many multiply-accumulates an item.

    The rule looks at the machine and the network only, never at a clock, so that the same run gives the same weights.
    Raises UserError where a wish cannot be granted.
    """
    check_precision(wish, device)
    if wish != "auto":
        return Arithmetic(wish, "as the recipe says")
    if not _multiplies_bf16(device):
        return Arithmetic("fp32", f"{_name(device)} has no bf16 instructions")
    if macs < _WORTHWHILE_MACS:
        return Arithmetic("fp32", f"{macs:,} multiplications an item are too few for bf16 to pay")
    if device.type == "cpu" and _is_depthwise(network):
        return Arithmetic("fp32", "depthwise convolutions are slower in bf16 on a processor")
    return Arithmetic("bf16", f"{_name(device)} multiplies in bf16; weights, losses and updates stay in fp32")


def check_precision(wish: Wish, device: torch.device) -> None:
    """Raise UserError where a wish cannot be granted on this device."""
    if wish == "fp16" and device.type == "cpu":
        raise UserError(
            "fit.precision = 'fp16' needs a GPU: processors multiply it slowly or not at all",
            "leave 'auto', or set 'bf16' or 'fp32'",
        )


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16", "arm_bf16"))


def _is_depthwise(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in network.modules())


def _name(device: torch.device) -> str:
    return "the GPU" if device.type == "cuda" else "the processor"
