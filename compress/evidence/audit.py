"""The compression audit: what an accuracy hides of what was lost (Hooker et al. 2019, arXiv 1911.05248).

Which classes pay, what happened to the scores, which items most variants answer otherwise than the baseline.
N items, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.evidence.abstain import Abstention, Answered
from compress.evidence.calibrate import at_one
from compress.evidence.statistics import CONFIDENCE, drop_interval, holm, mcnemar
from compress.report import schema
from train.metrics import CALIBRATION_BINS, measure

_ROUNDS = 1000  # of the bootstrap
_EXEMPLARS = 20


def audit(
    scores: np.ndarray,
    baseline: np.ndarray,
    parent: tuple[str, np.ndarray] | None,
    labels: np.ndarray,
    classes: Sequence[str],
    seed: int,
) -> schema.Audit:
    """What became of one variant's answers; scores float32 [N, K] each, on the same items.

    `parent` is the id and the scores of what it was made from: the fp32 graph of a quantized one, a student's teacher.
    """
    ours, theirs = scores.argmax(axis=1), baseline.argmax(axis=1)
    change, low, high = _calibration_shift(scores, baseline, labels, seed)
    return schema.Audit(
        parent=None if parent is None else parent[0],
        parent_flips=None if parent is None else flips(ours, parent[1].argmax(axis=1), labels),
        classes=class_changes(ours, theirs, labels, classes),
        ece_change=change,
        ece_change_ci95=(low, high),
        reliability=reliability(scores, labels),
    )


def flips(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> schema.Flips:
    """Items, int64 [N] predicted each, that are right there and wrong here, and the other way round."""
    lost = int(((theirs == labels) & (ours != labels)).sum())
    return schema.Flips(lost=lost, gained=int(((ours == labels) & (theirs != labels)).sum()))


def class_changes(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> list[schema.ClassChange]:
    """The change of each class's recall, paired item by item; classes without an item are left out.

    With many classes some change by chance: the p-values of McNemar's test are corrected by Holm's method, and the
    intervals hold for all classes together at 95 % (Bonferroni, since Holm's method gives no intervals).
    """
    present = [at for at in range(len(classes)) if (labels == at).any()]
    changes = []
    for at in present:
        rows = labels == at
        counts, n = flips(ours[rows], theirs[rows], labels[rows]), int(rows.sum())
        low, high = drop_interval(counts.lost, counts.gained, n, 1 - (1 - CONFIDENCE) / len(present))
        changes.append((classes[at], n, counts, low, high))
    corrected = holm(np.array([mcnemar(counts.lost, counts.gained) for _, _, counts, _, _ in changes]))
    return [
        schema.ClassChange(
            label=label,
            n=n,
            lost=counts.lost,
            gained=counts.gained,
            drop_points=100 * (counts.lost - counts.gained) / n,
            drop_points_ci95=(100 * low, 100 * high),
            p=float(p),
        )
        for (label, n, counts, low, high), p in zip(changes, corrected, strict=True)
    ]


def reliability(scores: np.ndarray, labels: np.ndarray) -> list[schema.ReliabilityBin]:
    """What the best score says, and how often it is right, in equal bins from 0 to 1; empty ones are left out."""
    top, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    places = _bins(top)
    return [
        schema.ReliabilityBin(
            n=int(inside.sum()), score=float(top[inside].mean()), accuracy=float(right[inside].mean())
        )
        for inside in (places == at for at in np.unique(places))
    ]


def _calibration_shift(
    scores: np.ndarray, baseline: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """ECE less the baseline's, and its 95 % bootstrap interval over items that both share.

    An ECE is never below 0, so each resample's is a little high; of a difference most of that is gone. The interval is
    the basic one, which turns what is left around.
    """
    sides = [(_bins(one.max(axis=1)), _gap(one, labels)) for one in (scores, baseline)]

    def shift(rows: np.ndarray) -> float:
        ours, theirs = (_ece(places[rows], gap[rows]) for places, gap in sides)
        return ours - theirs

    found = shift(np.arange(len(labels)))
    random = np.random.default_rng(seed)
    drawn = [shift(random.integers(0, len(labels), len(labels))) for _ in range(_ROUNDS)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return found, float(2 * found - high), float(2 * found - low)


def _bins(top: np.ndarray) -> np.ndarray:
    """The bin of each score; a score on an edge belongs to the bin below, as torchmetrics has it."""
    return np.clip(np.ceil(top.astype(np.float64) * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)


def _gap(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Confidence less correctness, float64 [N]."""
    gap: np.ndarray = scores.max(axis=1).astype(np.float64) - (scores.argmax(axis=1) == labels)
    return gap


def _ece(places: np.ndarray, gap: np.ndarray) -> float:
    return float(np.abs(np.bincount(places, gap, CALIBRATION_BINS)).sum() / len(gap))


def exemplars(
    answers: Sequence[np.ndarray],
    baseline: np.ndarray,
    labels: np.ndarray,
    origins: Sequence[str],
    classes: Sequence[str],
) -> list[schema.Exemplar]:
    """The items that most variants answer otherwise than the baseline: int64 [N] predicted each.

    "Compression identified exemplars": they are often atypical or wrongly labelled, and worth a person's look.
    """
    if not answers:
        return []
    others = np.stack(list(answers))  # [variants, N]
    flipped = (others != baseline).sum(axis=0)
    order = np.argsort(-flipped, kind="stable")[:_EXEMPLARS]
    return [
        schema.Exemplar(
            item=int(row),
            origin=origins[row] if len(origins) else "",
            label=classes[labels[row]],
            baseline=classes[baseline[row]],
            variants=classes[int(np.bincount(others[:, row][others[:, row] != baseline[row]]).argmax())],
            flipped=int(flipped[row]),
            of=len(answers),
        )
        for row in order.tolist()
        if flipped[row]
    ]


def temperature_facts(scores: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """The temperature of `scores` float32 [N, K], and how they were calibrated without one; empty where that is 1."""
    if temperature == 1.0:
        return {}
    return {"temperature": temperature, "ece_uncalibrated": measure(at_one(scores, temperature), labels).ece}


def promise_facts(promise: Abstention | None, found: Answered | None) -> schema.Abstention | None:
    """A promise and what became of it on test; None where none was asked for."""
    if promise is None or found is None:
        return None if promise is None else schema.Abstention(**promise.model_dump())
    return schema.Abstention(
        **promise.model_dump(),
        test_answered=found.answered,
        test_wrong=found.wrong,
        coverage=found.answered / found.n,
        coverage_ci95=found.coverage_ci95,
        test_precision=1 - found.wrong / found.answered if found.answered else None,
        test_precision_ci95=found.precision_ci95,
    )
