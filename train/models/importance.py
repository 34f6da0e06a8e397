"""Which attention heads and feed-forward neurons of a transformer matter, layer by layer.

"taylor": how much the loss would change if a unit were gone, to first order. Each unit's output is multiplied by a gate
of 1, and |d loss / d gate| of an item is averaged over items: for heads equation 2 of Michel et al. 2019 (arXiv
1905.10650), for neurons the first-order criterion of Molchanov et al. 2019 (arXiv 1906.10771). Units are compared
within their layer alone, so nothing has to be normalised between layers.

"magnitude": the length of all weights into a unit and out of it; needs no items.

N items, L tokens, H heads, F neurons, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from train.draft import Wanted
from train.inputs import Inputs, prepare_inputs
from train.models.narrow import LayerParts

if TYPE_CHECKING:
    from train.classifier import Classifier

_BATCH = 32


@dataclass(frozen=True)
class Importance:
    """Of one layer's units, in any scale: more is more important."""

    heads: np.ndarray  # float64 [H]
    neurons: np.ndarray  # float64 [F]


def most_important(importance: np.ndarray, count: int) -> list[int]:
    """The numbers of the `count` most important units in rising order; of equals the first."""
    return sorted(np.argsort(-importance, kind="stable")[:count].tolist())


def drawn_inputs(wanted: Wanted, items: int, classifier: Classifier) -> Inputs:
    """So many training items, drawn by the seed, as `classifier` takes them; all where there are no more."""
    drawn = np.random.default_rng(wanted.seed).permutation(len(wanted.train.labels))[:items]
    return prepare_inputs(wanted.train.take(np.sort(drawn)), classifier.preparer())


def taylor(classifier: Classifier, layers: Sequence[LayerParts], inputs: Inputs) -> list[Importance]:
    """The mean of |d loss / d gate| over the items of `inputs`, for each layer; the loss is cross-entropy.

    The classifier is in eval mode meanwhile, and computes where its weights are.
    """
    gated = _Gated(layers)
    frozen = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    device, training = next(iter(frozen)).device, classifier.training
    classifier.eval().requires_grad_(False)
    try:
        for rows in _batches(inputs):
            gated.open(len(rows), device)
            with torch.enable_grad():
                logits = classifier(torch.from_numpy(inputs.gather(rows)).to(device))
                labels = torch.from_numpy(inputs.labels[rows]).to(device)
                gated.add(F.cross_entropy(logits.float(), labels, reduction="sum"))
    finally:
        gated.close()
        classifier.train(training)
        for parameter, wanted in frozen.items():
            parameter.requires_grad_(wanted)
    return gated.means(len(inputs))


def magnitude(layers: Sequence[LayerParts]) -> list[Importance]:
    """The Euclidean length of the weights and biases into a unit and the weights out of it, for each layer."""
    return [
        Importance(
            heads=_length(layer.into_heads, layer.after_heads, layer.heads),
            neurons=_length((layer.into_neurons,), layer.after_neurons, layer.neurons),
        )
        for layer in layers
    ]


class _Gated:
    """Gates on all units of all layers: heads [N, H] and neurons [N, F] by turns."""

    def __init__(self, layers: Sequence[LayerParts]) -> None:
        self._gates: list[torch.Tensor] = []
        self._units = [units for layer in layers for units in (layer.heads, layer.neurons)]
        self._sums = [np.zeros(units) for units in self._units]
        modules = [module for layer in layers for module in (layer.after_heads, layer.after_neurons)]
        self._hooks = [module.register_forward_pre_hook(self._through(at)) for at, module in enumerate(modules)]

    def open(self, items: int, device: torch.device) -> None:
        """New gates for a batch of so many items."""
        self._gates = [torch.ones(items, units, device=device, requires_grad=True) for units in self._units]

    def add(self, loss: torch.Tensor) -> None:
        """Add up what the gates say of each item; `loss` is a sum over the batch."""
        for at, gradient in enumerate(torch.autograd.grad(loss, self._gates)):
            self._sums[at] += gradient.abs().double().sum(dim=0).cpu().numpy()

    def means(self, items: int) -> list[Importance]:
        means = [total / items for total in self._sums]
        return [Importance(heads, neurons) for heads, neurons in zip(means[::2], means[1::2], strict=True)]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _through(self, at: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def through(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            units: torch.Tensor = arguments[0]  # [N, L, units * size], the units side by side
            gate = self._gates[at]
            size = units.shape[-1] // gate.shape[1]
            return (units * gate.repeat_interleave(size, dim=1)[:, None, :],)

        return through


def _batches(inputs: Inputs) -> list[np.ndarray]:
    """Rows of like length together, to pad little."""
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    return [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]


@torch.no_grad()
def _length(into: Sequence[nn.Module], after: nn.Module, units: int) -> np.ndarray:
    """The length of each unit's weights: float64 [units]."""
    out = _weight(after).double().square().sum(dim=0)  # [units * size]
    squares = out.view(units, -1).sum(dim=1)
    for module in into:
        made = _weight(module).double().square().sum(dim=1)  # [units * size], or three such side by side
        bias = getattr(module, "bias", None)
        made = made if bias is None else made + bias.double().square()
        squares = squares + made.view(-1, units, len(out) // units).sum(dim=(0, 2))
    lengths: np.ndarray = squares.sqrt().cpu().numpy()
    return lengths


def _weight(module: Any) -> torch.Tensor:
    """[outputs, inputs]."""
    weight: torch.Tensor = module.weight.T if isinstance(module, Conv1D) else module.weight
    return weight
