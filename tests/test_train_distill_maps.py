"""The losses on feature maps against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.distill.maps import attention_maps, hints

GENERATOR = np.random.default_rng(0)


def maps(channels: int, size: int = 4) -> np.ndarray:
    return GENERATOR.normal(0, 1, (3, channels, size, size))


def halved(array: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 positions."""
    n, c, h, w = array.shape
    return array.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


def attention(item: np.ndarray) -> np.ndarray:
    flat = (item**2).sum(axis=0).ravel()
    return flat / np.sqrt((flat**2).sum())


@pytest.mark.parametrize("size", [4, 8])
def test_hints_are_mean_squared_differences_at_the_coarser_size(size: int) -> None:
    ours, theirs = maps(6), maps(6, size)
    coarse = theirs if size == 4 else halved(theirs)
    expected = sum(((mine - its) ** 2).mean() for mine, its in zip(ours, coarse, strict=True))
    assert hints(torch.tensor(ours), torch.tensor(theirs)).item() == pytest.approx(expected)
    assert hints(torch.tensor(theirs), torch.tensor(ours)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("channels", "size"), [(6, 4), (2, 8)])
def test_attention_maps_are_where_the_channels_squares_are(channels: int, size: int) -> None:
    ours, theirs = maps(6), maps(channels, size)
    coarse = theirs if size == 4 else halved(theirs)
    expected = sum(((attention(mine) - attention(its)) ** 2).sum() for mine, its in zip(ours, coarse, strict=True))
    assert attention_maps(torch.tensor(ours), torch.tensor(theirs)).item() == pytest.approx(expected)


def test_attention_maps_do_not_see_how_strong_a_map_is() -> None:
    ours = torch.tensor(maps(3))
    assert attention_maps(ours, ours * 7).item() == pytest.approx(0, abs=1e-12)
    opposite = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    opposite[0][0, 0, 0, 0] = opposite[1][0, 0, 1, 1] = 3.0
    assert attention_maps(*opposite).item() == pytest.approx(2)


@pytest.mark.parametrize("loss", [hints, attention_maps])
def test_parts_of_a_batch_add_up_and_a_black_map_has_a_gradient_that_is_a_number(loss) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = torch.tensor(maps(3)), torch.tensor(maps(3))
    parts = loss(ours[:1], theirs[:1]) + loss(ours[1:], theirs[1:])
    assert parts.item() == pytest.approx(loss(ours, theirs).item())
    black = torch.zeros_like(ours).requires_grad_()
    loss(black, theirs).backward()
    assert black.grad is not None
    assert torch.isfinite(black.grad).all()
