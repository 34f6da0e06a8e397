"""What this GPU can do at most, measured in the same run: copy bandwidth, and the rates of matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kernels.bench.case import Roof
from kernels.bench.timing import Timer, Times
from kernels.machine import driver_attribute

_MEMORY_CLOCK, _MEMORY_WIDTH = 36, 37  # CUdevice_attribute: kHz and bits
COPY_BYTES, SIDE = 512 << 20, 8192


@dataclass(frozen=True)
class Roofline:
    """Rates of the best that the libraries do here; None where this GPU or torch has no such operator."""

    copy_gb_s: float  # bytes read and written
    bf16_tflops: float  # torch.matmul, that is cuBLAS
    int8_tops: float  # torch._int_mm
    datasheet_gb_s: float | None  # of the memory, by its clock and width

    def rate(self, roof: Roof) -> float:
        """Bytes or operations a millisecond."""
        if roof == "copy":
            return self.copy_gb_s * 1e6
        return (self.bf16_tflops if roof == "bf16" else self.int8_tops) * 1e9


def measure_roofline(timer: Timer, device: torch.device, copy_bytes: int = COPY_BYTES, side: int = SIDE) -> Roofline:
    """Random contents: a product of zeros draws less power and runs faster."""
    copied = Times.of(timer(_copy(copy_bytes, device)))
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    operations = 2 * side**3
    bf16 = Times.of(timer(lambda: a @ b))
    whole, other = (torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
    int8 = Times.of(timer(lambda: torch._int_mm(whole, other.t())))
    return Roofline(
        copy_gb_s=2 * copy_bytes / copied.median_ms / 1e6,
        bf16_tflops=operations / bf16.median_ms / 1e9,
        int8_tops=operations / int8.median_ms / 1e9,
        datasheet_gb_s=_datasheet(device),
    )


def _copy(size: int, device: torch.device) -> Callable[[], torch.Tensor]:
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _datasheet(device: torch.device) -> float | None:
    """Two transfers a clock, as HBM and GDDR have them."""
    if device.type != "cuda":
        return None
    clock, width = (driver_attribute(number, device.index or 0) for number in (_MEMORY_CLOCK, _MEMORY_WIDTH))
    return None if clock is None or width is None else 2 * clock * 1e3 * width / 8 / 1e9
