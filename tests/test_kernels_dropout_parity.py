"""Dropout is compared as it is trained: planted bugs that evaluation mode cannot see are complained of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_networks import SMALL, bert
from kernel_cases import interpreter
from planted_bugs import plant
from torch import nn
from torchvision.models import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification

from kernels import dropout_mask, fused_layers, layernorm_backward, layernorm_forward, residual_layernorm
from kernels.dropout_parity import unlikely
from kernels.fuse import FuseOptions, fuse
from kernels.ledger import Ledger
from kernels.runtime import interpreted

pytestmark = interpreter
Made = tuple[nn.Module, Any]
P = 0.5
BACKWARD = "_backward_kernel"


def dropping_bert() -> Made:
    return bert(hidden_dropout_prob=P, attention_probs_dropout_prob=0.3)


def dropping_vit() -> Made:
    torch.manual_seed(0)
    config = ViTConfig(**SMALL, num_hidden_layers=1, image_size=8, patch_size=4, hidden_dropout_prob=P)
    return ViTForImageClassification(config), {"pixel_values": torch.randn(3, 3, 8, 8)}


def dropping_torchvision_vit() -> Made:
    torch.manual_seed(0)
    network = VisionTransformer(8, 4, 1, 2, 8, 12, dropout=P, attention_dropout=0.3, num_classes=3)
    return network, (torch.randn(3, 3, 8, 8),)


NETWORKS = {"post-norm": dropping_bert, "pre-norm": dropping_vit, "torchvision": dropping_torchvision_vit}
PLANTED = ("post-norm", "pre-norm")  # torchvision asks the same kernels as the latter


def judged(made: Made, **options: Any) -> Ledger:
    with interpreted():
        return fuse(*made, FuseOptions(force=True, **options))


def complained_of(made: Callable[[], Made]) -> set[str]:
    """What the ledger says of the sites that are not kept; in evaluation alone nothing is found."""
    seen = [entry for entry in judged(made()).entries if not entry.kept]
    assert not [entry for entry in judged(made(), backward=False).entries if not entry.kept]
    return {entry.why for entry in seen}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_drops_as_it_should_is_kept_and_leaves_no_trace(name: str, dtype: torch.dtype | None) -> None:
    network, batch = NETWORKS[name]()
    network.train()
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    before = [dict(vars(module)) for module in dropouts]
    state = torch.get_rng_state()
    ledger = judged((network, batch), dtype=dtype)
    assert all(entry.kept for entry in ledger.entries), [entry.why for entry in ledger.entries]
    assert [dict(vars(module)) for module in dropouts] == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize(
    ("where", "kernel", "right", "wrong", "said"),
    [
        # the backward pass draws another mask
        (layernorm_backward, BACKWARD, "kept(seed_ptr, row, 0", "kept(seed_ptr, row + 1, 0", "as trained it is off by"),
        # a mask that is never applied; and forwards alone
        (dropout_mask, "_keeps", ">= dropped", ">= 0", "as trained it keeps 1.0000 of the elements, and should 0.5"),
        (
            layernorm_forward,
            "load_sum",
            "tl.where(kept(seed_ptr, row, first, dropped, BLOCK), z * grown, 0.0)",
            "z * grown",
            "as trained it is off by",
        ),
        # what is kept does not grow, or what is dropped is not quite 0
        (layernorm_backward, BACKWARD, "dz * grown, 0.0", "dz, 0.0", "as trained its gradient is neither 0 nor"),
        (layernorm_backward, BACKWARD, "dz * grown, 0.0", "dz * grown, 0.1 * dz", "as trained its gradient is neither"),
        (layernorm_backward, BACKWARD, "dz * grown, 0.0", 'dz * float("inf"), 0.0', "as trained it gives what is no"),
    ],
)
def test_a_kernel_that_drops_wrongly_is_complained_of(
    name: str, where: Any, kernel: str, right: str, wrong: str, said: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    plant(monkeypatch, tmp_path, where, kernel, right, wrong)
    (why,) = {why[: len(said)] for why in complained_of(NETWORKS[name])}
    assert why == said


class Counting:
    """Seeds of its own, whatever torch's generator says."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, device: torch.device) -> torch.Tensor:
        self.drawn += 1
        return torch.tensor([self.drawn], device=device)


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize(
    ("where", "function", "wrong", "said"),
    [
        (fused_layers, "_probability", lambda dropout: 0.0, "as trained its gradient is neither 0 nor"),
        (fused_layers, "_probability", lambda dropout: P * dropout.training, "as trained with p = 0 it is off by"),
        (residual_layernorm, "draw_seed", Counting(), "as trained the same seed does not drop the same elements"),
        (residual_layernorm, "draw_seed", lambda device: torch.tensor([7]), "as trained another seed drops the same"),
    ],
)
def test_a_layer_that_asks_a_kernel_wrongly_is_complained_of(
    name: str, where: Any, function: str, wrong: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, function, wrong)
    (why,) = {why[: len(said)] for why in complained_of(NETWORKS[name])}
    assert why == said


def test_dropout_behind_which_nothing_can_be_seen_is_not_trusted() -> None:
    network, batch = dropping_bert()
    nn.init.zeros_(network.bert.encoder.layer[0].output.LayerNorm.weight)  # type: ignore[union-attr, index]
    (entry,) = [entry for entry in judged((network, batch)).entries if not entry.kept]
    assert entry.site == "bert.encoder.layer.0.output"
    assert entry.why == "as trained its dropout cannot be seen: the gradient behind it is 0"


@pytest.mark.parametrize(
    ("kept", "of", "p", "strange"),
    [
        (48, 48, 0.5, True),
        (48, 48, 0.1, False),  # chance does that in 1 of 157 cases
        (900_000, 1_000_000, 0.1, False),
        (897_000, 1_000_000, 0.1, True),  # 10 deviations
        (1_000_000, 1_000_000, 0.001, True),
        (0, 1000, 0.9, True),
    ],
)
def test_a_share_is_strange_where_chance_hardly_ever_gives_it(kept: int, of: int, p: float, strange: bool) -> None:
    assert unlikely(kept, of, p) is strange
