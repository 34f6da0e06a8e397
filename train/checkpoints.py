"""Where training goes on after it was stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerState

CHECKPOINTS = "checkpoints"
_STATE = "trainer_state.json"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; broken ones are deleted.

    Trainer writes trainer_state.json last, so one that parses proves the rest. It also stores the best checkpoint as
    a path, which after the run directory was moved or copied leads elsewhere: it is made to lead here.
    """
    found: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / _STATE).read_text())
            whole = _best_is_here(checkpoint, state)
        except (OSError, ValueError, KeyError):
            whole = False
        if whole:
            found.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint)
    return max(found)[1] if found else None


def _best_is_here(checkpoint: Path, state: dict[str, Any]) -> bool:
    """Whether the best checkpoint is there, beside this one; its path is mended where it leads elsewhere."""
    if state["best_model_checkpoint"] is None:
        return True
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    if best.is_dir() and state["best_model_checkpoint"] != str(best):
        mended = checkpoint / f".{_STATE}"
        mended.write_text(json.dumps({**state, "best_model_checkpoint": str(best)}))
        mended.replace(checkpoint / _STATE)
    return best.is_dir()


def state_of(checkpoint: Path) -> TrainerState:
    """What Trainer wrote down of itself in a whole checkpoint."""
    return TrainerState.load_from_json(str(checkpoint / _STATE))
