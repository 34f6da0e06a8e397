"""What a set of scores says about the labels. The one source of truth for every rate we report.

N items, K classes; all rates 0..1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metrics:
    n: int
    errors: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    precision: np.ndarray  # float [K]; 0 where a class was never predicted
    recall: np.ndarray  # float [K]; 0 where a class has no item
    f1: np.ndarray  # float [K]
    support: np.ndarray  # int [K]
    confusion: np.ndarray  # int [K, K], rows are true classes
    ece: float  # expected calibration error of the top label


def measure(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Metrics of `scores` float32 [N, K] against `labels` int64 [N]."""
    from torchmetrics.functional.classification import multiclass_calibration_error  # takes seconds to import

    classes = np.arange(scores.shape[1])
    predicted = scores.argmax(axis=1)
    errors = int((predicted != labels).sum())
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    with warnings.catch_warnings():  # sums like 0.9999999 make it ask whether the rows are probabilities
        warnings.simplefilter("ignore")
        ece = multiclass_calibration_error(
            torch.from_numpy(scores), torch.from_numpy(labels), num_classes=len(classes), n_bins=CALIBRATION_BINS
        )
    return Metrics(
        n=len(labels),
        errors=errors,
        accuracy=1 - errors / len(labels),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        confusion=confusion_matrix(labels, predicted, labels=classes),
        ece=float(ece),
    )


def macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Macro F1 of int64 [N] predictions, quick enough to be bootstrapped."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    right = np.diag(counts)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.divide(2 * right, total, out=np.zeros(classes), where=total > 0).mean())
