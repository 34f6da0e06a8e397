"""What a training was and what came of it: the record that a run keeps."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from kernels.ledger import Ledger
from train.epochs import EpochRecord


class Refit(BaseModel):
    """A second training from the same start on more items (`fit.final_refit`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int  # how many there were: the best of the first training
    items: int  # with labels; 0: it learned from unlabelled ones alone, both times the same
    items_before: int  # of the first training


class FitResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: list[EpochRecord]  # none where a model was taken as it is, or nothing was held out
    best_epoch: int  # the one whose weights were kept: highest validation accuracy, the earliest of equals; or the last
    params: int
    macs: int
    precision: str = "fp32"  # of the multiplications while training
    precision_why: str = ""
    notes: tuple[str, ...] = ()  # what a reader of the figures should know
    # As it was trained: smaller batches than in the recipe where memory ran out and fit.shrink_on_oom is set.
    batch_size: int | None = None
    accumulation: int | None = None
    refit: Refit | None = None  # what was trained again once `best_epoch` was known; None: nothing was
    processes: int = 1  # which shared each batch
    sharded: bool = False  # the model was split over them
    kernels: Ledger | None = None  # where fused ones ran, and why not elsewhere; None: fit.kernels was "off"
