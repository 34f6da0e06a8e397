"""Small networks with sites for kernels, a batch for each, and ways to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from text_models import tiny_config
from torch import nn
from torchvision.models import VisionTransformer, resnet18
from transformers import AutoModelForSequenceClassification, ViTConfig, ViTForImageClassification

from kernels.bias_gelu import bias_gelu
from kernels.residual_layernorm import residual_layernorm

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}


def bert(family: str = "bert", layers: int = 1, **changes: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = tiny_config(family, layers, **{**SMALL, **changes})
    batch = {"input_ids": torch.randint(5, 20, (2, 3)), "token_type_ids": torch.zeros(1, 1, dtype=torch.int64)}
    return AutoModelForSequenceClassification.from_config(config), batch


def distilbert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = tiny_config("distilbert", 1, dim=8, hidden_dim=12, n_heads=2)
    return AutoModelForSequenceClassification.from_config(config), {"input_ids": torch.randint(5, 20, (2, 3))}


def vit() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = ViTConfig(**SMALL, num_hidden_layers=1, image_size=8, patch_size=4)
    return ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 8, 8)}


def torchvision_vit() -> tuple[nn.Module, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    network = VisionTransformer(8, 4, 1, 2, 8, 12, num_classes=3)
    nn.init.normal_(network.heads.head.weight)  # type: ignore[arg-type]  # zeros, which give no gradient
    return network, (torch.randn(2, 3, 8, 8),)


def resnet() -> tuple[nn.Module, tuple[torch.Tensor]]:
    return resnet18(num_classes=3), (torch.randn(2, 3, 32, 32),)


def timer(*times_ms: float) -> Callable[[Callable[[], object]], float]:
    """A clock that gives these times in turn, over and over; `fuse` asks for eager, compiled, fused."""
    asked: list[float] = []

    def time(run: Callable[[], object]) -> float:
        asked.append(times_ms[len(asked) % len(times_ms)])
        return asked[-1]

    return time


def no_bias_gradient(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return bias_gelu(x, bias.detach())


def no_residual(x: torch.Tensor, residual: torch.Tensor, *others: Any) -> torch.Tensor:
    return residual_layernorm(x, None, *others)


def no_gradient_of_the_residual(x: torch.Tensor, residual: torch.Tensor, *others: Any) -> torch.Tensor:
    return residual_layernorm(x, residual.detach(), *others)


def no_number(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return bias_gelu(x, bias) * float("nan")


def out_of_resources(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("out of resource: shared memory")
