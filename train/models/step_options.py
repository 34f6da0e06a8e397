"""`options.steps` and `options.recovery_epochs`: a teacher's network is cut a little at a time, and trained in between.

What every model that is cut from its teacher takes; train/recovery.py goes the steps.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serve.errors import UserError


class StepOptions(BaseModel):
    """In how many steps a student is cut from its teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=1, ge=1, le=100)  # cut a little at a time, and train in between
    recovery_epochs: int = Field(default=1, ge=1)  # of each training in between; the last cut is followed by all of fit


def check_steps(options: StepOptions, model: str) -> None:
    """Raise UserError for epochs between steps where there is only one."""
    if "recovery_epochs" in options.model_fields_set and options.steps == 1:
        raise UserError(
            f"'{model}': recovery_epochs is for the trainings between several steps, but steps = 1",
            "set options.steps = 2 or more, or leave out recovery_epochs: fit.epochs is what follows the last step",
        )


def at_once(options: dict[str, Any]) -> dict[str, Any]:
    """`options` for a network of the same shape that is cut in one step."""
    return {name: value for name, value in options.items() if name not in StepOptions.model_fields}
