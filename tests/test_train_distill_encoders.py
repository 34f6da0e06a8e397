from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from train.distill.encoders import attention, hidden_states, relation_heads, relations, scores

GENERATOR = np.random.default_rng(0)
LENGTHS = (5, 2, 4)
MASK = np.arange(5) < np.array(LENGTHS)[:, None]


def vectors(width: int) -> np.ndarray:
    return GENERATOR.normal(0, 1, (3, 5, width))


def heads_of(item: np.ndarray, heads: int) -> list[np.ndarray]:
    """The [L, D / H] blocks of one item."""
    return np.split(item, heads, axis=1)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=array.dtype == np.float64)


def test_hidden_states_are_compared_token_by_token_without_padding() -> None:
    ours, theirs = vectors(6), vectors(6)
    expected = sum(((ours[n, :length] - theirs[n, :length]) ** 2).mean() for n, length in enumerate(LENGTHS))
    assert hidden_states(tensor(ours), tensor(theirs), tensor(MASK)).item() == pytest.approx(expected)


def test_attention_scores_are_compared_pair_by_pair_without_padding() -> None:
    ours, theirs = GENERATOR.normal(0, 1, (2, 3, 4, 5, 5))
    expected = sum(((ours[n, :, :k, :k] - theirs[n, :, :k, :k]) ** 2).mean() for n, k in enumerate(LENGTHS))
    assert attention(tensor(ours), tensor(theirs), tensor(MASK)).item() == pytest.approx(expected)


def test_scores_are_those_of_scaled_dot_product_attention() -> None:
    query, key = vectors(8), vectors(8)
    found = scores(tensor(query), tensor(key), heads=2).detach().numpy()
    for n in range(3):
        for head, (q, k) in enumerate(zip(heads_of(query[n], 2), heads_of(key[n], 2), strict=True)):
            assert found[n, head] == pytest.approx(q @ k.T / np.sqrt(4))


@pytest.mark.parametrize("width", [24, 12])
def test_relations_are_the_divergence_of_self_attention_of_vectors_of_any_width(width: int) -> None:
    ours, theirs = vectors(width), vectors(24)
    expected = 0.0
    for n, length in enumerate(LENGTHS):
        divergences = []
        for mine, their in zip(heads_of(ours[n, :length], 12), heads_of(theirs[n, :length], 12), strict=True):
            log_q = log_softmax(mine @ mine.T / np.sqrt(width / 12), axis=1)
            p = softmax(their @ their.T / np.sqrt(2), axis=1)
            divergences.append((p * (np.log(p) - log_q)).sum(axis=1))
        expected += np.mean(divergences)
    assert relations(tensor(ours), tensor(theirs), tensor(MASK)).item() == pytest.approx(expected, rel=1e-4)


def test_relation_heads_suit_both_widths() -> None:
    assert relation_heads(384, 312) == 12
    assert relation_heads(384, 128) == 8
    assert relation_heads(7, 384) == 1


@pytest.mark.parametrize("loss", [hidden_states, relations])
def test_a_longer_batch_mate_changes_no_loss_and_padding_gets_no_gradient(loss) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = tensor(vectors(12)), tensor(vectors(12))
    whole = loss(ours, theirs, tensor(MASK))
    alone = sum(
        loss(ours[n : n + 1, :length], theirs[n : n + 1, :length], tensor(MASK[n : n + 1, :length])).item()
        for n, length in enumerate(LENGTHS)
    )
    assert whole.item() == pytest.approx(alone, rel=1e-4)
    whole.backward()
    assert ours.grad is not None
    assert ours.grad[~torch.tensor(MASK)].abs().max().item() == 0
