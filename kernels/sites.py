"""Where in a network a kernel could stand: sites, found by the type of a module, and how one is fused and restored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from kernels import fused_layers as layers

# Families of transformers whose layers are BERT's, letter for letter: module, and how the names of classes begin.
BERTS = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm_roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
}

_classes: dict[tuple[type, type], type] = {}


@dataclass(frozen=True)
class Kind:
    """One kind of site: which modules are of it, and what they become."""

    kernel: str  # its module in kernels/
    fused: type  # a class of `fused_layers`, or like them
    matches: Callable[[nn.Module], bool]  # by type alone
    unfit: Callable[[Any], str | None]  # why such a module cannot be fused all the same; None where it can
    drops: str | None = None  # the member whose output its kernel drops by `module.dropout`; None: it drops nothing


@dataclass(frozen=True)
class Site:
    """One module that may be fused."""

    name: str  # in the network, as `named_modules` has it
    module: nn.Module
    kind: Kind

    @property
    def unfit(self) -> str | None:
        return self.kind.unfit(self.module)

    def fuse(self) -> None:
        """Change the module's class to the fused one."""
        self.module.__class__ = _class_of(self)

    def restore(self) -> None:
        restore(self.module)

    @contextmanager
    def fused(self) -> Iterator[nn.Module]:
        """For a while."""
        self.fuse()
        try:
            yield self.module
        finally:
            self.restore()


def find_sites(network: nn.Module, kinds: Sequence[Kind]) -> list[Site]:
    """The sites of `network` in its order; a module that is used in several places is one site."""
    found = ((name, module, kind) for name, module in network.named_modules() for kind in kinds if kind.matches(module))
    return [Site(name, module, kind) for name, module, kind in found]


def unfuse(network: nn.Module) -> nn.Module:
    """Give every fused module of `network` its own class again: the very network that it was. Returns it."""
    for module in network.modules():
        restore(module)
    return network


def restore(module: nn.Module) -> None:
    """Its own class again, where `module` is fused."""
    plain = getattr(type(module), "plain", None)
    if plain is not None:
        module.__class__ = plain


def _class_of(site: Site) -> Any:
    """The module's own class and the fused one in one, of which the fused forward counts; the same each time."""
    plain: Any = type(site.module)
    key = (site.kind.fused, plain)
    if key not in _classes:
        fused = site.kind.fused
        _classes[key] = type(f"Fused{plain.__name__}", key, {"plain": plain, "__doc__": fused.__doc__})
    return _classes[key]


def _named(*names: str) -> Callable[[nn.Module], bool]:
    """Modules whose type has one of these full names: nothing is imported to compare with."""
    return lambda module: f"{type(module).__module__}.{type(module).__name__}" in names


def _berts(*endings: str) -> tuple[str, ...]:
    return tuple(
        f"transformers.models.{family}.modeling_{family}.{prefix}{ending}"
        for family, prefix in BERTS.items()
        for ending in endings
    )


def _norm_unfit(norm: Any, dropout: Any = None) -> str | None:
    if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None or len(norm.normalized_shape) != 1:
        return f"its norm is {_short(norm)}: the kernel is for a LayerNorm over one axis with weight and bias"
    if dropout is None:
        return None
    if type(dropout) is not nn.Dropout:
        return f"its dropout is {_short(dropout)}: the kernel is for plain dropout of elements"
    return None if dropout.p < 1 else "its dropout leaves nothing"


def _gelu_unfit(linear: Any, activation: Any) -> str | None:
    if type(linear) is not nn.Linear or linear.bias is None:
        return f"before its activation is {_short(linear)}: the kernel is for a plain Linear with a bias"
    if not isinstance(activation, nn.Module) or not layers.is_exact_gelu(activation):
        return f"its activation is {_short(activation)}: the kernel is for the exact GELU"
    return None


def _short(what: Any) -> str:
    return repr(what) if len(repr(what)) < 60 else type(what).__name__


def _is_sequential_gelu(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return False
    members = list(module)
    return any(layers.is_linear_gelu(*pair) for pair in itertools.pairwise(members))


_DISTIL = "transformers.models.distilbert.modeling_distilbert"
_VIT, _TORCHVISION = "transformers.models.vit.modeling_vit", "torchvision.models.vision_transformer"
KINDS = (
    Kind(
        "residual_layernorm",
        layers.EmbeddingsNorm,
        _named(*_berts("Embeddings")[:1], *_berts("Embeddings")[-1:]),  # of BERT and ELECTRA; RoBERTa counts otherwise
        lambda module: _norm_unfit(module.LayerNorm, module.dropout),
    ),
    Kind(
        "residual_layernorm",
        layers.ResidualNorm,
        _named(*_berts("SelfOutput", "Output")),
        lambda module: _norm_unfit(module.LayerNorm, module.dropout),
        "dense",
    ),
    Kind(
        "bias_gelu",
        layers.BiasGelu,
        _named(*_berts("Intermediate")),
        lambda module: _gelu_unfit(module.dense, module.intermediate_act_fn),
    ),
    Kind(
        "residual_layernorm",
        layers.DistilLayer,
        _named(f"{_DISTIL}.TransformerBlock"),
        lambda module: _norm_unfit(module.sa_layer_norm) or _norm_unfit(module.output_layer_norm),
    ),
    Kind(
        "bias_gelu",
        layers.DistilGelu,
        _named(f"{_DISTIL}.FFN"),
        lambda module: _gelu_unfit(module.lin1, module.activation),
    ),
    Kind(
        "residual_layernorm",
        layers.PreNormLayer,
        _named(f"{_VIT}.ViTLayer"),
        lambda module: (
            _norm_unfit(module.layernorm_after, module.dropout)
            if hasattr(module, "mlp")
            else "its parts are called otherwise in this version of transformers"
        ),
        "attention",
    ),
    Kind(
        "bias_gelu",
        layers.MlpGelu,
        _named(f"{_VIT}.ViTMLP"),
        lambda module: _gelu_unfit(module.fc1, module.activation_fn),
    ),
    Kind(
        "bias_gelu",
        layers.BiasGelu,
        _named(f"{_VIT}.ViTIntermediate"),  # what earlier versions of transformers call it
        lambda module: _gelu_unfit(module.dense, module.intermediate_act_fn),
    ),
    Kind(
        "residual_layernorm",
        layers.EncoderBlock,
        _named(f"{_TORCHVISION}.EncoderBlock"),
        lambda module: _norm_unfit(module.ln_2, module.dropout),
        "self_attention",
    ),
    Kind("bias_gelu", layers.SequentialGelu, _is_sequential_gelu, lambda module: None),
)
