"""How likely is it that what validation shows will hold on test?

Of many candidates one is chosen that looked good, and part of that is luck: a few hundred items say little of what will
be lost among thousands. The chance is predictive: rates that validation's counts leave possible (Jeffreys' prior), and
test splits drawn with them.
"""

from __future__ import annotations

import numpy as np

from compress.evidence.drops import Drop
from compress.evidence.statistics import accuracy_interval, drop_interval
from compress.recipe import Accept

_DRAWS = 1000
_PRIOR = 0.5  # Jeffreys'


def chance_to_hold(accept: Accept, drop: Drop, n: int) -> float | None:
    """The chance that a test split of `n` items of the metric keeps the margin, by a drop on validation.

    None where the metric is no share of items, of which nothing can be counted.
    """
    generator = np.random.default_rng(0)
    if drop.target is not None and drop.right is not None:
        rates = generator.beta(drop.right + _PRIOR, drop.n - drop.right + _PRIOR, _DRAWS)
        least = (drop.target - accept.max_drop_points) / 100
        counts, times = np.unique(generator.binomial(n, rates), return_counts=True)
        holds = np.array([accuracy_interval(int(right), n)[0] >= least for right in counts])
        return float((holds * times).sum() / _DRAWS)
    if drop.lost is None or drop.gained is None:
        return None
    alike = drop.n - drop.lost - drop.gained
    rates = generator.dirichlet([drop.lost + _PRIOR, drop.gained + _PRIOR, alike + _PRIOR], _DRAWS)
    drawn = np.array([generator.multinomial(n, rate) for rate in rates])[:, :2]
    counts, times = np.unique(drawn, axis=0, return_counts=True)
    margin = accept.max_drop_points / 100
    holds = np.array([_within(int(lost), int(gained), n, margin) for lost, gained in counts])
    return float((holds * times).sum() / _DRAWS)


def assurance_problems(chance: float | None, asked: float, items: int) -> list[str]:
    """What is wrong with a chance that is smaller than what was asked for."""
    if chance is None or chance >= asked:
        return []
    return [f"by {items:,} validation items it would hold on test with a chance of {chance:.0%}, under {asked:.0%}"]


def _within(lost: int, gained: int, n: int, margin: float) -> bool:
    """Whether the upper limit of the drop keeps the margin. Most counts are far from it, and need no interval."""
    return lost - gained < margin * n and drop_interval(lost, gained, n)[1] <= margin
