"""Kernels that failed in a training, kept beside its checkpoints: when it goes on it does not try them again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

LOG = logging.getLogger("limbeck.kernels")
FAILED = "kernels-failed.json"


@dataclass(frozen=True)
class Failure:
    """What went wrong, and with what: it says nothing of another GPU, or of batches of another size."""

    why: str
    device: str  # the GPU's name
    items: int  # of a batch
    training: bool  # in a step of the training, so that a loss may be to blame; False: while kernels were chosen

    def remember(self, folder: Path) -> None:
        """Write it into `folder`. Where that fails it is tried again, and no training ends for it."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAILED).write_text(json.dumps(asdict(self), indent=1) + "\n")
        except OSError as error:
            LOG.warning("that kernels failed could not be written down: %s", error)

    def not_again(self, folder: Path) -> str:
        return f"not tried again ({self.why}); delete {folder / FAILED} to try once more"


def remembered(folder: Path, device: torch.device, items: int) -> Failure | None:
    """The failure that `folder` has of this GPU and size of batch; None where there is none, or it cannot be read."""
    try:
        found = Failure(**json.loads((folder / FAILED).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if (found.device, found.items) == (name_of(device), items) else None


def blamed(problem: BaseException) -> str | None:
    """What a kernel said, where `problem` or what it comes from is one that Triton or the GPU raised; else None.

    A GPU reports an illegal access late and without a name: that it was a kernel's is likely, and to do without them
    costs little. Memory that ran out is nobody's fault.
    """
    for error in _chain(problem):
        of_triton = type(error).__module__.partition(".")[0] == "triton" or "Triton Error" in str(error)
        if of_triton or isinstance(error, torch.AcceleratorError):
            return described(error)
    return None


def described(problem: BaseException) -> str:
    """In one line."""
    return f"{type(problem).__name__}: {problem}".strip().splitlines()[0][:200]


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    """The problem, what it was raised from, and so on: torch.compile wraps what its backend raises."""
    while problem is not None:
        yield problem
        problem = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
