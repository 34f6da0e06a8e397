from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_cases import COLUMNS, ROWS, interpreter
from planted_bugs import plant
from torch import Tensor

from kernels import normalise as module
from kernels.normalise import normalise, reference
from kernels.runtime import interpreted
from train.augment import geometry, mixing
from train.draft import Normalisation
from train.front import Normalise

pytestmark = interpreter
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
FRONT = Normalise(Normalisation(mean=MEAN, std=STD))
SCALE, SHIFT = FRONT.scale.view(-1), FRONT.shift.view(-1)


def drawn(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Images [B, H, W, C]."""
    torch.manual_seed(count * width)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8)


def changes(count: int) -> dict[str, Tensor]:
    """flip, partner, share; the first image, if it is not alone, is neither mirrored nor mixed."""
    flip, share = torch.rand(count) < 0.5, torch.rand(count)
    if count > 1:
        flip[0], flip[1], share[0] = False, True, 1.0
    return {"flip": flip, "partner": torch.randperm(count), "share": share}


def as_in_training(images: Tensor, flip: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """What the views of a training split and the first layer of a network make of them on the CPU."""
    views = geometry.flip(images.numpy(), flip.numpy())
    box = np.zeros(images.shape[:3], dtype=bool)
    mixed = mixing._average(views, views[partner.numpy()], share.numpy(), box)
    (y,) = FRONT(torch.from_numpy(mixed))
    return y


def agree(images: Tensor) -> None:
    how = changes(len(images))
    expected = as_in_training(images, **how)
    for layout, given in (("NHWC", images), ("NCHW", images.permute(0, 3, 1, 2).contiguous())):
        with interpreted():
            y = normalise(given, SCALE, SHIFT, layout=layout, **how)
        torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [each for each in COLUMNS if each != 4097])
@pytest.mark.parametrize("count", ROWS)
def test_it_is_what_training_makes_of_a_batch(count: int, width: int) -> None:
    agree(drawn(count, 2 if count < 33 else 1, width))


def test_wide_images() -> None:
    agree(drawn(2, 2, 4097))


@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_neither_mirrored_nor_mixed_in_any_dtype(dtype: torch.dtype, channels: int) -> None:
    images = drawn(3, 5, 9, channels)
    scale, shift = torch.rand(channels) / 50, torch.rand(channels) - 1
    with interpreted():
        y = normalise(images, scale, shift, dtype)
    expected = images.permute(0, 3, 1, 2).double() * scale.double().view(-1, 1, 1) + shift.double().view(-1, 1, 1)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


def test_planes_stay_planes() -> None:
    planes = drawn(2, 4, 6).permute(0, 3, 1, 2).contiguous()
    with interpreted():
        y = normalise(planes, SCALE, SHIFT, layout="NCHW", flip=torch.tensor([True, False]))
    assert y.is_contiguous()
    torch.testing.assert_close(y, (planes * SCALE.view(-1, 1, 1) + SHIFT.view(-1, 1, 1)).where(
        torch.tensor([False, True]).view(2, 1, 1, 1), planes.flip(3) * SCALE.view(-1, 1, 1) + SHIFT.view(-1, 1, 1)
    ))  # fmt: skip


def test_any_layout_in_memory() -> None:
    wide = drawn(6, 8, 9)
    how = changes(3)
    for images in (wide[::2, 1:7:2, :5], wide[:1].expand(3, 8, 9, 3), wide.transpose(1, 2)[:3]):
        with interpreted():
            y = normalise(images, SCALE, SHIFT, **how)
        torch.testing.assert_close(y, as_in_training(images.contiguous(), **how))
    apart = {name: torch.stack([each, each.flip(0)], dim=1)[:, 0] for name, each in how.items()}
    same = {"flip": torch.tensor(True), "partner": torch.tensor(2), "share": torch.tensor(0.25)}
    for more in (apart, {name: value.expand(3) for name, value in same.items()}):  # every second value, and stride 0
        with interpreted():
            y = normalise(wide[:3], SCALE, SHIFT, **more)
        whole = {name: each.contiguous() for name, each in more.items()}
        torch.testing.assert_close(y, as_in_training(wide[:3], **whole))


def test_grey_levels_between_two_go_to_the_even_one() -> None:
    images = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).view(4, 1, 1, 1)
    partner, half = torch.tensor([1, 2, 3, 0]), torch.full((4,), 0.5)
    with interpreted():
        y = normalise(images, torch.ones(1), torch.zeros(1), partner=partner, share=half)
    assert y.flatten().tolist() == [0, 2, 2, 2]  # 0.5, 1.5, 2.5, 1.5


def test_kernel_and_plain_pytorch_agree_and_an_empty_batch_stays_empty() -> None:
    images = drawn(4, 7, 6)
    how = changes(4)
    with interpreted():
        y = normalise(images, SCALE, SHIFT, torch.float16, **how)
        empty = normalise(images[:0], SCALE, SHIFT, **{name: each[:0] for name, each in how.items()})
    torch.testing.assert_close(y, reference(images, SCALE, SHIFT, torch.float16, **how))
    torch.testing.assert_close(y, normalise(images, SCALE, SHIFT, torch.float16, **how))  # no GPU, no interpreter
    assert empty.shape == (0, 3, 7, 6)


def test_opcheck_compile_and_export() -> None:
    images, how = drawn(2, 3, 4), changes(2)
    with interpreted():
        torch.library.opcheck(module._normalise, (images, SCALE, SHIFT, torch.float16, "NHWC", *how.values()))
    compiled = torch.compile(lambda i: normalise(i, SCALE, SHIFT) * 2, fullgraph=True, backend="aot_eager")
    with interpreted():
        torch.testing.assert_close(compiled(images), reference(images, SCALE, SHIFT) * 2)

    class Layer(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return normalise(images, SCALE, SHIFT)

    assert "limbeck.normalise" in str(torch.export.export(Layer(), (images,)).graph)


X, S, TWO = torch.zeros(2, 4, 4, 3).byte(), torch.zeros(3), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "named", "said"),
    [
        ((X.float(), S, S), {}, r"images are float32 \(2, 4, 4, 3\): expected uint8 \[B, H, W, C\]"),
        ((X[0], S, S), {}, r"images are uint8 \(4, 4, 3\)"),
        ((X[:, :0], S, S), {"layout": "NCHW"}, r"\(2, 0, 4, 3\): expected uint8 \[B, C, H, W\]"),
        ((X, S, S), {"layout": "CHWN"}, "layout is 'CHWN': expected 'NHWC' or 'NCHW'"),
        ((X, S, S, torch.float64), {}, "dtype is float64: expected one of bfloat16"),
        ((X, S[:2], S), {}, r"scale is float32 \(2,\): expected float32 \(3,\)"),
        ((X, S, S), {"flip": TWO}, r"flip is int64 \(2,\): expected bool \(2,\)"),
        ((X, S, S), {"partner": TWO}, "of partner and share one is None"),
        ((X, S, S), {"partner": TWO + 2, "share": TWO.float()}, "partners are 2 to 2: expected 0 to 1"),
        ((X, S, S), {"partner": TWO - 1, "share": TWO.float()}, "partners are -1 to -1: expected 0 to 1"),
        ((X, S, S), {"partner": TWO, "share": TWO + 1.5}, "a share is outside of 0 to 1"),
        ((X, S, S), {"partner": TWO, "share": TWO / 0}, "a share is outside of 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, named: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        normalise(*arguments, **named)


@pytest.mark.parametrize(
    ("kernel", "right", "wrong"),
    [
        ("_pixels", "(W - 1)", "(W - 2)"),
        ("_pixels", "* STEP + at % STEP", "* STEP"),
        ("_kernel", "(1.0 - share)", "share"),
        ("_kernel", "+ 12582912.0) - 12582912.0", "+ 0.0)"),
        ("_kernel", "if LAST else at // (P // C)", "if LAST else at // P"),
    ],
)
def test_a_planted_bug_is_found(
    kernel: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agree(drawn(4, 3, 5))
    plant(monkeypatch, tmp_path, module, kernel, right, wrong)
    with pytest.raises(AssertionError):
        agree(drawn(4, 3, 5))
