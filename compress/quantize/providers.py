"""Which processors and providers have int8 kernels, and what they need of a graph.

Processors: without VNNI (avx_vnni, avx512_vnni), x86 multiplies uint8 by int8 with vpmaddubsw, which adds two products
in 16 bits and cuts off what is over 32,767 (onnxruntime#5849, #6004). Weights of 7 bits cannot get there:
2 * 255 * 64 = 32,640. With VNNI, and on ARM, sums have 32 bits. `could_saturate` counts where a graph's own weights
could get there. ONNX Runtime's other remedy is the session entry session.x64quantprecision, which multiplies uint8 by
uint8 without loss, and slower.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from compress.environment import hardware
from compress.quantize.config import Provider, Quantize, is_integer
from serve.errors import UserError, did_you_mean
from serve.manifest import Precision

NAMES: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_WITHOUT_INT8 = ("CUDAExecutionProvider",)  # onnxruntime#10267: its int8 graphs fall back to the CPU, node by node
_LARGEST = 2**15 - 1


def reduced_range(config: Quantize) -> tuple[bool, str]:
    """Whether weights get 7 bits instead of 8, and why."""
    if config.reduce_range != "auto":
        return config.reduce_range, "as the recipe says"
    flags = hardware().get("cpu_flags") or []
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False, f"{platform.machine()} adds int8 products in 32 bits"
    found = [flag for flag in flags if "vnni" in flag]
    if found:
        return False, f"this processor has {found[0]}, which adds int8 products in 32 bits"
    return True, "this processor has no VNNI: it adds pairs of int8 products in 16 bits, which 8-bit weights overflow"


def runnable(precisions: Sequence[Precision], provider: Provider) -> tuple[tuple[Precision, ...], str]:
    """What of `precisions` to make for `provider`: fp16 in the stead of int8 where it has no int8 kernels, and why."""
    name = NAMES[provider]
    if name not in _WITHOUT_INT8:
        return tuple(precisions), ""
    lacking = [precision for precision in precisions if is_integer(precision)]
    if not lacking:
        return tuple(precisions), ""
    kept: list[Precision] = [precision for precision in precisions if precision not in lacking]
    if "fp16" not in kept:
        kept.append("fp16")
    return tuple(kept), f"{name} has no int8 kernels, so fp16 is made in the stead of {', '.join(lacking)}"


def check_provider(config: Quantize, available: Sequence[str] | None = None) -> str:
    """What a run should say of its provider, if anything, before hours go into training.

    Raises UserError where this installation of ONNX Runtime has no such provider; `available` are those that it has.
    """
    if config.provider == "cpu":
        return ""
    found = ort.get_available_providers() if available is None else available
    if NAMES[config.provider] not in found:
        known = [short for short, name in NAMES.items() if name in found]
        raise UserError(
            f"quantize.provider = '{config.provider}': this installation of ONNX Runtime has no "
            f"{NAMES[config.provider]}",
            did_you_mean(config.provider, known),
        )
    _, why = runnable(config.precisions, config.provider)
    return f"{why}; what is timed here is the CPU" if why else ""


def could_saturate(content: bytes) -> int:
    """Pairs of neighbouring int8 weights [K, N] or [N, ...] whose products could overflow 16 bits without VNNI.

    An upper bound: it takes activations of 255 in both places. None are left with 7-bit weights.
    """
    model = onnx.load_from_string(content)
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}  # looked up, not multiplied
    return sum(
        _pairs(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) >= 2 and tensor.name not in tables
    )


def _pairs(weights: np.ndarray) -> int:
    """Of int8 [K, N] down the columns; of a convolution's [N, ...] along what each output channel sums."""
    rows = weights.astype(np.int32).reshape(len(weights), -1)
    summed = rows.T if weights.ndim == 2 else rows  # [outputs, what is summed]
    pairs = summed[:, : summed.shape[1] // 2 * 2].reshape(len(summed), -1, 2).sum(axis=2)
    return int((np.abs(255 * pairs) > _LARGEST).sum())
