from __future__ import annotations

import json
from pathlib import Path

from train.checkpoints import last_checkpoint


def checkpoint(folder: Path, step: int, best: Path | None) -> Path:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    state = {"best_model_checkpoint": None if best is None else str(best), "epoch": step}
    (place / "trainer_state.json").write_text(json.dumps(state))
    return place


def test_training_goes_on_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    best = checkpoint(tmp_path / "before", 1, None)
    checkpoint(tmp_path / "before", 2, best)
    moved = (tmp_path / "before").rename(tmp_path / "after")
    assert last_checkpoint(moved) == moved / "checkpoint-2"
    state = json.loads((moved / "checkpoint-2" / "trainer_state.json").read_text())
    assert state == {"best_model_checkpoint": str(moved / "checkpoint-1"), "epoch": 2}


def test_a_checkpoint_whose_best_is_gone_or_that_is_half_written_is_deleted(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path, 1, None)
    orphan = checkpoint(tmp_path, 2, tmp_path / "checkpoint-9")
    half = checkpoint(tmp_path, 3, None)
    (half / "trainer_state.json").write_text("{")
    assert last_checkpoint(tmp_path) == kept
    assert not orphan.exists()
    assert not half.exists()
