"""The exact test behind a verdict: is the drop below the margin, however few items are discordant?

Tango's score limit is near its level, not below it: over margins up to 8 points, 100 to 1,821 items and any share of
gains, a variant whose true drop is the margin passes in up to 2.60 % of all test splits, and below 100 items in up to
3.4 % (tests/test_compress_evidence_noninferiority.py counts them). So the limit is what a reader is shown, and what
passes by it must pass an exact test too, whose level of 2.5 % holds for every n.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import beta, binom

from compress.evidence.statistics import CONFIDENCE, score_z

LEVEL = (1 - CONFIDENCE) / 2  # one-sided, as the limits
# The share of gains is not known. It is searched where it can be at all, but for so small a chance, which is added to
# the p-value (Berger & Boos 1994, JASA 89:1012).
_UNLIKELY = 1e-4
_GRID = 60
_TAIL = 1e-9  # outcomes that together are rarer than this are left out, and count as if they passed


def paired_p(lost: int, gained: int, n: int, margin: float) -> float:
    """Exact p-value of "the true drop (lost - gained) / n is `margin` or more", a share 0..1.

    The unconditional test of Chan (1998, Statistics in Medicine 17:1403) with the score statistic: the probability,
    at the worst share of gains, of an outcome that speaks as much for a drop below the margin.
    """
    observed = float(score_z(np.array(lost), np.array(gained), n, margin))
    low = float(beta.ppf(_UNLIKELY / 2, gained, n - gained + 1)) if gained else 0.0
    high = float(beta.ppf(1 - _UNLIKELY / 2, gained + 1, n - gained))
    most = (1 - margin) / 2  # with more gains, there are not items enough for such a drop
    shares = np.linspace(low, min(high, most), _GRID if low <= most else 0)
    worst = max(_chance(observed, n, margin, float(share)) for share in shares) if len(shares) else 0.0
    return min(1.0, worst + _UNLIKELY + _TAIL)


def _chance(observed: float, n: int, margin: float, gain: float) -> float:
    """Of a score statistic at most `observed`, where the true shares of lost and gained are margin + gain and gain."""
    loss = min(1.0, margin + gain)
    first, last = binom.ppf(_TAIL / 4, n, loss), binom.ppf(1 - _TAIL / 4, n, loss)
    lost = np.arange(int(first), int(last) + 1)[:, None]
    share = min(1.0, gain / (1 - loss)) if loss < 1 else 0.0
    least, most = binom.ppf(_TAIL / 4, n - int(last), share), binom.ppf(1 - _TAIL / 4, n - int(first), share)
    gained = np.arange(int(least), int(most) + 1)[None, :]
    rest = n - lost
    chances = binom.pmf(lost, n, loss) * np.where(gained <= rest, binom.pmf(gained, rest, share), 0.0)
    passes = score_z(lost, gained, n, margin) <= observed + 1e-9
    return float(chances[passes & (gained <= rest)].sum())
