"""Which arithmetic training takes, and that what it leaves behind is plain fp32."""

import numpy as np
import pytest
import torch
from helpers import image_classifier
from torch import nn

from serve.errors import UserError
from train import precision
from train.precision import choose_arithmetic

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LARGE = 40_000_000


def with_instructions(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def test_bf16_is_taken_where_the_processor_has_it_and_the_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    with_instructions(monkeypatch, avx512_bf16=True)
    assert choose_arithmetic("auto", nn.Conv2d(3, 3, 3), LARGE, CPU).precision == "bf16"


@pytest.mark.parametrize(
    ("network", "macs", "capabilities", "reason"),
    [
        (nn.Conv2d(3, 3, 3), LARGE, {"avx2": True}, "no bf16 instructions"),
        (nn.Linear(784, 10), 7_840, {"amx_bf16": True}, "7,840 multiplications"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), LARGE, {"amx_bf16": True}, "depthwise"),
    ],
)
def test_fp32_is_kept_where_bf16_would_not_pay(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, macs: int, capabilities: dict[str, bool], reason: str
) -> None:
    with_instructions(monkeypatch, **capabilities)
    arithmetic = choose_arithmetic("auto", network, macs, CPU)
    assert arithmetic.precision == "fp32"
    assert reason in arithmetic.why


def test_a_gpu_with_bf16_takes_it_for_depthwise_networks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert choose_arithmetic("auto", nn.Conv2d(4, 4, 3, groups=4), LARGE, GPU).precision == "bf16"


def test_a_wish_is_granted_whatever_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with_instructions(monkeypatch)
    assert choose_arithmetic("bf16", nn.Linear(2, 2), 4, CPU) == precision.Arithmetic("bf16", "as the recipe says")
    assert choose_arithmetic("fp32", nn.Conv2d(3, 3, 3), LARGE, GPU).precision == "fp32"
    assert choose_arithmetic("fp16", nn.Linear(2, 2), 4, GPU).precision == "fp16"


def test_fp16_on_a_processor_is_refused() -> None:
    with pytest.raises(UserError, match="needs a GPU"):
        choose_arithmetic("fp16", nn.Linear(2, 2), 4, CPU)


@pytest.mark.parametrize("size", [8, 32])
def test_convolutions_see_their_maps_in_channels_last(size: int) -> None:
    images = np.zeros((4, size, size, 3), dtype=np.uint8)
    network = image_classifier(images, ("a", "b"), model="builtin:resnet8")
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, given, made: seen.extend(
                    maps.is_contiguous(memory_format=torch.channels_last) for maps in (given[0], made)
                )
            )
    network.train()(torch.from_numpy(images)).sum().backward()
    assert len(seen) == 2 * 9
    assert all(seen)
