"""Scores that mean what they say: a temperature for each variant; the threshold of a promise is learned after it.

N items, K classes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize_scalar

from compress.evidence.abstain import AbstainConfig, Abstention, choose_threshold
from serve.package import load_package, write_package
from serve.predictor import Predictor
from serve.runner import softmax
from train.sources import Items

_RANGE = (0.2, 10.0)  # of temperatures; beyond it a fit says more of its few items than of the model
_BATCH = 64


class CalibrateConfig(BaseModel):
    """[calibrate]: off by default, so that scores stay those of the training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: bool = False  # one number for each variant, fitted on validation (Guo et al. 2017, arXiv 1706.04599)


class Meaning(BaseModel):
    """What a variant's scores mean: the temperature that softens them, and its promise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = 1.0
    abstention: Abstention | None = None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which `logits` float32 [N, K] are the likeliest; 1 where every item is right.

    Without an error the likelihood grows as the temperature falls to 0, which is nothing to learn from.
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    rows, wide = np.arange(len(labels)), logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = wide / math.exp(log_temperature)
        top = scaled.max(axis=1)
        return float((np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[rows, labels]).mean())

    low, high = (math.log(end) for end in _RANGE)
    found = math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    # A float32 holds it in the graph's stead; two labels whose logits hardly differ must not become one.
    same = (softmax(logits, found).argmax(axis=1) == logits.argmax(axis=1)).all()
    return round(found, 4) if same else 1.0


def at_one(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Scores float32 [N, K] that were given at `temperature`, as they are at 1."""
    return softmax(temperature * np.log(np.maximum(scores, np.finfo(np.float32).tiny)), 1.0)


def learn_meaning(
    logits: np.ndarray, labels: np.ndarray, calibrate: CalibrateConfig, abstain: AbstainConfig | None
) -> Meaning:
    """What validation's `logits` float32 [N, K] teach, as the recipe asks.

    The threshold is chosen on the items that the temperature was fitted on. Two labels keep their order at any
    temperature; with more, the bound is no longer exact, and half of the items for each would cost far more than it
    mends: of promises at 90 % confidence, with 4 labels and 150 items 0.8 % broke and 1.0 % with the true temperature,
    with 10 labels and 300 items 0.5 and 0.8 % (400 draws each): one number fits little, and the search's steps share
    what may fail.
    """
    temperature = fit_temperature(logits, labels) if calibrate.temperature else 1.0
    promise = None if abstain is None else choose_threshold(softmax(logits, temperature), labels, abstain)
    return Meaning(temperature=temperature, abstention=promise)


def write_meaning(
    folder: Path, items: Items, calibrate: CalibrateConfig, abstain: AbstainConfig | None, known: Meaning | None
) -> tuple[Meaning, str]:
    """Have the package in `folder` answer with what its scores on `items` mean, or with what is `known`; its new id.

    `known` is of the weights from before a refit: those that ship have seen the items.
    """
    package = load_package(folder)
    if known is None:
        predictor = Predictor(package)
        batches = [items.content[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
        logits = np.concatenate([predictor.logits(predictor.prepare(batch)) for batch in batches])
        known = learn_meaning(logits, items.labels, calibrate, abstain)
    below = None if known.abstention is None else known.abstention.below
    manifest = package.manifest.model_copy(update={"temperature": known.temperature, "abstain_below": below})
    return known, write_package(folder, manifest, package.files, package.card, package.serving).manifest.id
