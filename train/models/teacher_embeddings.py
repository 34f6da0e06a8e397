"""The word embeddings of a text teacher, as those that a student starts from.

V tokens, D the teacher's width, E the student's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from serve.errors import UserError
from train.models.embeddings import input_embeddings

if TYPE_CHECKING:
    from train.classifier import Classifier


@torch.no_grad()
def teacher_embeddings(teacher: Classifier, width: int | None) -> torch.Tensor:
    """The teacher's table float32 [V, D] as it was fine-tuned, or its best [V, E] for a `width` E below D.

    Best is the projection on the first E right singular vectors: no other E dimensions keep more of the dot products
    between tokens (Eckart & Young 1936, doi 10.1007/BF02288367). Raises UserError for a teacher without such a table,
    and for a width above its own.
    """
    table = input_embeddings(teacher).weight.detach().float().cpu()
    if width is None or width == table.shape[1]:
        return table.clone()
    if width > table.shape[1]:
        raise UserError(
            f"options.embedding = {width} is wider than the embeddings of the teacher '{teacher.spec.model}', which "
            f"have {table.shape[1]} dimensions",
            f"give {table.shape[1]} or fewer, or leave it out to take all",
        )
    exact = table.double()
    # the right singular vectors of [V, D] from its small [D, D] square, whose eigenvalues come smallest first
    _, vectors = torch.linalg.eigh(exact.T @ exact)
    return (exact @ vectors.flip(1)[:, :width]).float().contiguous()
