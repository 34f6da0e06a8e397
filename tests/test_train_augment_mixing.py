from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, kstest

from train.augment import AugmentConfig
from train.augment.draws import ItemDraws
from train.augment.mixing import mix, mixed_rows, partners
from train.inputs import ImageInputs
from train.views import View

N = 600
FLAT = np.broadcast_to(np.arange(N)[:, None, None, None] % 200 + 50, (N, 8, 8, 1)).astype(np.uint8)
LABELS = np.arange(N) % 7
DRAWS = ItemDraws(seed=1, epoch=0, index=np.arange(N))


def test_partners_are_any_other_items_of_the_split() -> None:
    drawn = np.concatenate([partners(ItemDraws(1, epoch, np.arange(10)), 10) for epoch in range(300)]).reshape(300, 10)
    assert not (drawn == np.arange(10)).any()
    for item in range(10):
        counts = np.bincount(drawn[:, item], minlength=10)
        assert set(np.flatnonzero(counts)) == {*range(10)} - {item}
        assert counts.max() < 60  # 33 each on average
    assert partners(ItemDraws(1, 0, np.array([0])), 1).tolist() == [0]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_blends_whole_images_by_shares_from_beta(alpha: float) -> None:
    others = FLAT[::-1]
    mixed, share = mix(FLAT, others, AugmentConfig(mixup=alpha), DRAWS)
    assert kstest(share, beta(alpha, alpha).cdf).pvalue > 0.01
    part = share[:, None, None, None]
    assert np.abs(mixed - (part * FLAT + (1 - part) * others)).max() <= 0.5 + 1e-4


def test_cutmix_puts_a_box_of_the_partner_in_and_counts_its_area() -> None:
    own, other = np.zeros((N, 30, 20, 3), dtype=np.uint8), np.full((N, 30, 20, 3), 9, dtype=np.uint8)
    mixed, share = mix(own, other, AugmentConfig(cutmix=1.0), DRAWS)
    pasted = (mixed == 9).all(axis=-1)
    assert ((mixed == 9) | (mixed == 0)).all()
    height, width = pasted.any(axis=2).sum(axis=1), pasted.any(axis=1).sum(axis=1)
    assert (pasted.sum(axis=(1, 2)) == height * width).all()  # one box
    assert share == pytest.approx(1 - pasted.mean(axis=(1, 2)), abs=1e-6)
    assert pasted.mean(axis=0).min() > 0.05  # everywhere
    assert share.min() < 0.1
    assert share.max() > 0.9


def test_of_two_ways_each_item_gets_one_and_so_many_get_none() -> None:
    config = AugmentConfig(mixup=1.0, cutmix=1.0, probability={"mixup": 0.5})
    rows = mixed_rows(config, DRAWS)
    assert len(rows) / N == pytest.approx(0.75, abs=0.06)
    own, other = np.zeros((N, 12, 12, 1), dtype=np.uint8), np.full((N, 12, 12, 1), 255, dtype=np.uint8)
    mixed, _ = mix(own[rows], other[rows], config, DRAWS.take(rows))
    pasted = ((mixed == 0) | (mixed == 255)).all(axis=(1, 2, 3))
    assert pasted.mean() == pytest.approx(2 / 3, abs=0.07)  # half of all by CutMix, a quarter by Mixup


def test_a_batch_says_how_much_of_each_class_its_items_have() -> None:
    """Partners are augmented too, as they look in this epoch."""
    view = View(ImageInputs(FLAT, LABELS), AugmentConfig(mixup=1.0, brightness=0.2), seed=1, classes=9)
    plain = View(ImageInputs(FLAT, LABELS), AugmentConfig(brightness=0.2), seed=1)
    batch, alone = view.__getitems__(list(range(N))), plain.__getitems__(list(range(N)))
    whole = alone["inputs"].numpy().astype(float)
    _, share = mix(FLAT, FLAT, AugmentConfig(mixup=1.0), DRAWS)
    other = partners(DRAWS, N)
    part = share[:, None, None, None]
    assert np.abs(batch["inputs"].numpy() - (part * whole + (1 - part) * whole[other])).max() <= 0.5 + 1e-4
    targets = batch["targets"].numpy()
    assert (targets.dtype, targets.shape) == (np.float32, (N, 9))
    assert targets.sum(axis=1) == pytest.approx(1, abs=1e-6)
    same = LABELS[other] == LABELS
    rows = np.arange(N)
    assert targets[rows, LABELS] == pytest.approx(np.where(same, 1, share), abs=1e-6)
    assert targets[rows, LABELS[other]] == pytest.approx(np.where(same, 1, 1 - share), abs=1e-6)
    assert (batch["labels"].numpy() == LABELS).all()
    assert "targets" not in alone


def test_items_that_are_not_mixed_keep_their_label_whole() -> None:
    config = AugmentConfig(cutmix=1.0, probability={"cutmix": 0.2})
    batch = View(ImageInputs(FLAT, LABELS), config, seed=1, classes=7).__getitems__(list(range(N)))
    left = np.setdiff1d(np.arange(N), mixed_rows(config, DRAWS))
    assert 0.7 < len(left) / N < 0.9
    assert (batch["inputs"].numpy()[left] == FLAT[left]).all()
    assert (batch["targets"].numpy()[left] == np.eye(7)[LABELS[left]]).all()
