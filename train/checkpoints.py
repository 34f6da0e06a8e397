"""Where training goes on after it was stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers.trainer_callback import TrainerState

CHECKPOINTS = "checkpoints"
_STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; broken ones are deleted.

    Trainer writes trainer_state.json last, so one that parses proves the rest. It also stores the best checkpoint as
    a path: after the run directory was moved that path leads nowhere, and starting anew is the safe answer.
    """
    found: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / _STATE).read_text())
            best = state["best_model_checkpoint"]
            whole = best is None or Path(best).parent.samefile(folder)
        except (OSError, ValueError, KeyError):
            whole = False
        if whole:
            found.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint)
    return max(found)[1] if found else None


def state_of(checkpoint: Path) -> TrainerState:
    """What Trainer wrote down of itself in a whole checkpoint."""
    return TrainerState.load_from_json(str(checkpoint / _STATE))
