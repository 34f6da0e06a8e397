"""Several teachers speak as one. M teachers, N items, K classes.

Where probabilities are compared it is the weighted mean of the teachers' probabilities at the lesson's temperature: the
arithmetic mean that Hinton et al. 2015 (arXiv 1503.02531) name for the soft targets of an ensemble, and You et al. 2017
("Learning from Multiple Teacher Networks", KDD) train with. Where logits themselves are compared it is the weighted
mean of the logits, as of the ensemble in Ba & Caruana 2014 (arXiv 1312.6184).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from train.distill.config import DistillConfig


def combined(answers: Sequence[torch.Tensor], config: DistillConfig) -> torch.Tensor:
    """The logits [N, K] of one teacher that answers as M do together; `answers` are their logits, each [N, K].

    softmax(combined / T) is exactly the weighted mean of softmax(logits / T), at the T of `config`, for every method
    but "logits-mse". One teacher's logits stay as they are.
    """
    if len(answers) == 1:
        return answers[0]
    weights = config.shares
    if config.method == "logits-mse":
        return torch.stack([weight * logits for weight, logits in zip(weights, answers, strict=True)]).sum(dim=0)
    # in logarithms, where no probability is too small to be told from 0
    log_p = [
        math.log(weight) + F.log_softmax(logits / config.temperature, dim=1)
        for weight, logits in zip(weights, answers, strict=True)
    ]
    return config.temperature * torch.logsumexp(torch.stack(log_p), dim=0)
