"""Whether a fused module computes what the plain one does: output and gradients, on the inputs that it really gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# The largest difference over the largest value: sums of thousands of terms in another order, and in half precision one
# rounding more or less. A dropped mask or a missing gradient is off by 0.01 to 1 in fp32.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 5e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Call:
    """What a module was called with; `dtype` is that of its products under autocast, None without."""

    args: tuple[Any, ...]
    named: Mapping[str, Any]
    dtype: torch.dtype | None = None

    def leaves(self, dtype: torch.dtype | None = None) -> Call:
        """The same with floating tensors cut off from what they came from, as leaves; upcast to `dtype` if given."""
        return Call(tuple(_leaf(value, dtype) for value in self.args), _leaves(self.named, dtype), self.dtype)

    @property
    def inputs(self) -> list[torch.Tensor]:
        """Those that have a gradient."""
        given = (*self.args, *self.named.values())
        return [value for value in given if isinstance(value, torch.Tensor) and value.requires_grad]

    @property
    def device(self) -> torch.device:
        given = (*self.args, *self.named.values())
        return next(value.device for value in given if isinstance(value, torch.Tensor))

    def arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return torch.autocast(self.device.type, enabled=False)
        # no cache: of a weight that was cast without gradients it would hand out that copy again
        return torch.autocast(self.device.type, dtype=self.dtype, cache_enabled=False)


def outcome(
    module: nn.Module, call: Call, backward: bool = True, also: Sequence[torch.Tensor] = (), gradient: int = 0
) -> list[torch.Tensor]:
    """Its output, and with `backward` the gradients of its inputs and parameters for a fixed gradient of the output.

    Then those of `also`, which may be filled on the way. There are several fixed gradients; `gradient` says which.
    """
    if not backward:
        with torch.no_grad(), call.arithmetic():
            return [_tensor(module(*call.args, **call.named))]
    with torch.enable_grad(), call.arithmetic():
        output = _tensor(module(*call.args, **call.named))
    of = [*call.inputs, *(parameter for parameter in module.parameters() if parameter.requires_grad), *also]
    if not of or not output.requires_grad:
        return [output]
    gradients = torch.autograd.grad(output, of, _upstream(output, gradient), allow_unused=True)
    return [
        output.detach(),
        *(torch.zeros_like(like) if one is None else one for one, like in zip(gradients, of, strict=True)),
    ]


def difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest difference of two tensors over the largest value of that expected; infinity for what is no number.

    The scale of a tensor that is next to nothing, as the gradient of the bias of keys, is a thousandth of the largest.
    """
    largest = max((_largest(tensor) for tensor in expected), default=0.0)
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape or not all(bool(torch.isfinite(each).all()) for each in (one, other)):
            return float("inf")
        scale = max(_largest(other), 1e-3 * largest) or 1.0
        worst = max(worst, _largest(one.double() - other.double()) / scale)
    return worst


def site_error(
    module: nn.Module, fused: Callable[[], AbstractContextManager[Any]], call: Call, backward: bool
) -> float:
    """The difference of `module` while `fused()` to itself, with this call's arithmetic or in full precision."""
    expected = outcome(module, call.leaves(), backward)
    with fused():
        found = outcome(module, call.leaves(), backward)
    return difference(found, expected)


def in_full(call: Call) -> Call:
    """The call without autocast, its inputs in fp32."""
    return Call(call.leaves(torch.float32).args, call.leaves(torch.float32).named)


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, each module's own mode afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def as_trained(module: nn.Module, trained: bool) -> Iterator[None]:
    """Training mode for a while where it is `trained`, with all its dropout; of a network that is `still`."""
    module.train(trained)
    try:
        yield
    finally:
        module.eval()


def _leaves(named: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    return {name: _leaf(value, dtype) for name, value in named.items()}


def _leaf(value: Any, dtype: torch.dtype | None) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    value = value.detach()
    narrow = dtype is not None and value.dtype in (torch.float16, torch.bfloat16)
    return (value.to(dtype) if narrow else value).requires_grad_()


def _tensor(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
    return found


def _upstream(output: torch.Tensor, which: int) -> torch.Tensor:
    """A gradient that is no constant, since that vanishes in a LayerNorm; the same for the same shape and number."""
    generator = torch.Generator(output.device).manual_seed(output.numel() + which)
    return torch.randn(output.shape, generator=generator, device=output.device, dtype=torch.float32).to(output.dtype)


def _largest(tensor: torch.Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0
