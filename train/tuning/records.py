"""What is known of each trial, in plain fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from train.tuning.space import Space, drawn

# User attributes of a trial in the storage.
NUMBER, WORKER, ABANDONED, ERROR = "limbeck:number", "limbeck:worker", "limbeck:abandoned", "limbeck:error"

State = Literal["running", "complete", "pruned", "failed"]
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class TrialRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int  # from 1; that of an abandoned trial is given again
    state: State
    value: float | None  # of the metric, 0..1; only where complete
    values: dict[str, Any]  # by field
    steps: dict[int, float]  # what was reported on the way: validation accuracy by epoch, or by fold
    seconds: float | None
    error: str | None


def record_of(trial: FrozenTrial, space: Space) -> TrialRecord:
    """The record of a trial in the storage."""
    return TrialRecord(
        number=trial.user_attrs[NUMBER],
        state=_STATES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        values=drawn(trial.params, space),
        steps=dict(sorted(trial.intermediate_values.items())),
        seconds=None if trial.duration is None else round(trial.duration.total_seconds(), 2),
        error=trial.user_attrs.get(ERROR),
    )


def best_of(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial of the highest value, the earliest of equals; None without one."""
    complete = [record for record in records if record.value is not None]
    return max(complete, key=lambda record: (record.value, -record.number), default=None)
