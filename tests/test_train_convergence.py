"""200 updates with kernels and with plain operators give the same loss curve: a tiny BERT and ResNet-8, both taught.

`make prove-kernels` (LIMBECK_PROVE=1) does all 200; `make test` the first 40, since the interpreter is slow.

Rounding differs, and training at a high rate makes chaos of it: at 0.1 two plain trainings whose weights differ by 2e-7
are 0.4 apart in the end, at the rate taken here 2e-5. No loss may be off by more than a thousandth of the first one.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from fused_networks import bert
from kernel_cases import interpreter
from torch import nn

from kernels.distill_loss import distill_loss
from kernels.fuse import FuseOptions, fuse
from kernels.runtime import interpreted
from train.distill.logits import soft_targets
from train.models.resnet import ResNetOptions, resnet

pytestmark = interpreter
PROVES = bool(os.environ.get("LIMBECK_PROVE"))
UPDATES, TOLERANCE = 200 if PROVES else 40, 1e-3
LEARNED = 0.7 if PROVES else 0.97  # of the first losses, the last ones at most
TEMPERATURE, ALPHA = 3.0, 0.7
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain_loss(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum")
    return (ALPHA * soft_targets(student, teacher, TEMPERATURE) + (1 - ALPHA) * hard) / len(labels)


def kernel_loss(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    items = len(labels)
    return distill_loss(student, teacher, labels, TEMPERATURE, ALPHA / items, (1 - ALPHA) / items).loss


def curve(network: nn.Module, batches: list[tuple[torch.Tensor, ...]], loss_of: Loss, rate: float) -> list[float]:
    """The losses of the updates by SGD with momentum, over the batches again and again."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    losses = []
    for update in range(UPDATES):
        inputs, teacher, labels = batches[update % len(batches)]
        found = network(inputs)
        loss = loss_of(getattr(found, "logits", found), teacher, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(found: list[float], plain: list[float]) -> None:
    off = max(abs(one - other) for one, other in zip(found, plain, strict=True))
    assert off < TOLERANCE * plain[0], f"off by {off:.2e} at most"
    first, last = sum(plain[:10]), sum(plain[-10:])
    assert last < LEARNED * first  # it learns, or two equal lines are compared


def test_a_tiny_bert() -> None:
    network, _ = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3)
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(4):
        ids = torch.randint(5, 20, (3, 3), generator=generator)
        labels = ids[:, 0] % 3
        batches.append((ids, 2 * F.one_hot(labels, 3) + torch.randn(3, 3, generator=generator), labels))
    twin = copy.deepcopy(network)
    plain = curve(network.train(), batches, plain_loss, 0.02)
    with interpreted():
        assert len(fuse(twin, (batches[0][0], None, torch.zeros(1, 1).long()), FuseOptions(force=True)).kept) == 4
        twin.train()
        same(curve(twin, batches, kernel_loss, 0.02), plain)


def test_resnet8() -> None:
    torch.manual_seed(0)
    network = resnet(8, (8, 8, 3), 4, ResNetOptions(width=4))
    batches = [(torch.randn(4, 3, 8, 8), 2 * torch.randn(4, 4), torch.randint(4, (4,))) for _ in range(4)]
    twin = copy.deepcopy(network)
    plain = curve(network, batches, plain_loss, 0.02)
    with interpreted():
        same(curve(twin, batches, kernel_loss, 0.02), plain)
