from __future__ import annotations

import pytest
import torch

from serve.errors import UserError
from train.models.builtin import build_module, check

MNIST = (28, 28, 1)
CIFAR = (32, 32, 3)


def params(name: str, shape: tuple[int, int, int], **options: float | str) -> int:
    return sum(parameter.numel() for parameter in build_module(name, shape, 10, options).parameters())


def test_hintons_nets_have_their_size() -> None:
    assert params("mlp-1200x1200", MNIST) == 2_395_210
    assert params("mlp-800x800", MNIST) == 784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10


def test_residual_networks_have_their_published_size() -> None:
    # He et al. 2016, table 6: 0.27 M and 0.85 M. Ours adds the 1x1 shortcuts: 16*32 + 32*64 weights and 2*96 of norms.
    assert params("resnet20", CIFAR) == 269_722 + 2560 + 192
    assert params("resnet56", CIFAR) == 853_018 + 2560 + 192
    # Zagoruyko & Komodakis 2016, table 5: WRN-40-4 has 8.9 M, WRN-16-8 11.0 M
    assert params("wrn-40-4", CIFAR) / 1e6 == pytest.approx(8.9, abs=0.06)
    assert params("wrn-16-8", CIFAR) / 1e6 == pytest.approx(11.0, abs=0.06)


def test_a_small_cnn_counts_by_hand() -> None:
    # 28 -> 14 -> 7; convolutions without bias, two parameters a channel of norm, two linear layers
    expected = 9 * 16 + 32 + 9 * 16 * 32 + 64 + (32 * 7 * 7 * 20 + 20) + (20 * 10 + 10)
    assert params("cnn-16x32", MNIST, hidden=20) == expected


def test_a_small_cnn_halves_by_strides_where_asked() -> None:
    # 28 -> 14 -> 7 -> 4, as every other pixel is computed, and no pooling
    features = 9 * 16 + 32 + 9 * 16 * 32 + 64 + 9 * 32 * 64 + 128
    head = (64 * 4 * 4 * 20 + 20) + (20 * 10 + 10)
    assert params("cnn-16x32x64", MNIST, hidden=20, halve="stride") == features + head
    assert params("cnn-16x32x64", MNIST, hidden=0, halve="stride") == features + (64 * 4 * 4 * 10 + 10)
    model = build_module("cnn-16x32x64", MNIST, 10, {"halve": "stride"})
    assert not [module for module in model.modules() if isinstance(module, torch.nn.MaxPool2d)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp-8", {}),
        ("cnn-4", {}),
        ("cnn-4x4x4x4x4x4", {}),
        ("cnn-4x4x4x4x4x4", {"halve": "stride", "hidden": 0}),
        ("resnet8", {}),
        ("wrn-10-2", {}),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (8, 8, 1), (7, 30, 3), (32, 32, 3)])
def test_any_image_size_fits_any_model(name: str, options: dict[str, str], shape: tuple[int, int, int]) -> None:
    model = build_module(name, shape, 6, options).eval()
    height, width, channels = shape
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 6)


@pytest.mark.parametrize("name", ["resnet21", "resnet2", "resnet0", "wrn-15-2", "wrn-4-2", "wrn-16-0"])
def test_a_depth_that_does_not_exist_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(UserError, match=f"there is no {name}") as refused:
        check(name, {}, "image")
    assert "take " in refused.value.hint


@pytest.mark.parametrize("name", ["mlp-", "mlp-0", "mlp-8x", "cnn-8x0", "resnet", "wrn-16", "vgg16", "resnet20 "])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown builtin model"):
        check(name, {}, "image")


def test_an_option_of_another_family_is_refused() -> None:
    check("cnn-8", {"hidden": 4, "dropout": 0.5}, "image")
    with pytest.raises(UserError, match="'builtin:mlp-8' does not take option hidden = 4"):
        check("mlp-8", {"hidden": 4}, "image")
    with pytest.raises(UserError, match=r"dropout = 1\.0"):
        check("mlp-8", {"dropout": 1.0}, "image")


def test_an_image_size_is_an_option_of_any_image_model() -> None:
    check("cnn-8", {"image_size": 64}, "image")
    check("resnet8", {"image_size": [48, 64]}, "image")
    for size in ("64", 0, [64], -1):
        with pytest.raises(UserError, match="is no size"):
            check("cnn-8", {"image_size": size}, "image")


def test_checking_a_model_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    check("wrn-16-2", {}, "image")
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_works_in_training_only() -> None:
    model = build_module("mlp-64", (8, 8, 1), 10, {"dropout": 0.5, "input_dropout": 0.2})
    pixels = torch.ones(1, 1, 8, 8)
    assert not torch.equal(model(pixels), model(pixels))
    model.eval()
    assert torch.equal(model(pixels), model(pixels))
