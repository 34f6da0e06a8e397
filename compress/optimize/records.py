"""What a search leaves: a record of each trial, written at once, and optimize.json with all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from compress.recipe import Accept
from compress.rundir import write_text
from serve.manifest import GraphLevel, Precision

OPTIMIZE_JSON, PAGE, RESOLVED, SEARCH = "optimize.json", "optimize.html", "optimized.toml", "search"

# "omitted": a package that was not begun, since it would not have been done within the budget.
State = Literal["complete", "screened", "stopped", "unfinished", "omitted", "failed"]


class Trial(BaseModel):
    """A model at one precision; a model that was left before it was trained to the end has one record alone."""

    model_config = ConfigDict(extra="forbid")

    number: int
    id: str  # MODEL-PRECISION, as the variant is called; where it was left, of its fastest precision
    model: str
    source: str  # as a recipe names it: teacher-layers:3
    options: dict[str, Any]
    precision: Precision
    state: State
    feasible: bool
    why: str
    # What this trial alone took: a model's first one carries its shape and its training.
    seconds: dict[str, float] = {}  # shape, training, package, timing, validation
    epochs: int = 0  # trained so far
    epochs_in_all: int = 0
    accuracy: float | None = None  # 0..1, on validation: of the package where complete, else of the last epoch in torch
    drop_points: float | None = None  # of the recipe's metric on validation, with the 95 % interval of these items
    drop_low: float | None = None
    drop_high: float | None = None
    drop_upper: float | None = None  # upper 97.5 % limit as a test split of its size will have it: what is judged
    chance: float | None = None  # that the margin holds on test too, by the counts on validation, 0..1
    p50_ms: float | None = None  # from bytes to label, batch 1, with `threads`
    p95_ms: float | None = None
    relative: float | None = None  # p50 over that of the teacher's fp32 package at 1 thread, timed in the same minute
    measured_untrained: bool = False  # latency and size are of a network of that shape, not trained yet
    size_bytes: int | None = None
    threads: int = 1
    graph_level: GraphLevel = "all"
    excess: float | None = None  # how far beyond the limit that it breaks most, as a share of that limit

    @property
    def cost(self) -> float:
        return sum(self.seconds.values())


class Record(BaseModel):
    """optimize.json: the whole search so far."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    task: str
    source: str
    command: str | None
    accept: Accept
    metric: str  # in words
    validation_items: int
    test_items: int
    teacher: str  # its model, as the recipe names it
    teacher_accuracy: float | None = None  # 0..1, on validation, in torch
    optimize: dict[str, Any]  # [optimize] as it was resolved
    designs: int  # students that the space holds
    budget_seconds: float
    spent_seconds: float
    ended: str  # why the search ended, or that it goes on
    trials: list[Trial]
    choice: str | None = None  # id of the trial whose package was judged on test
    choice_reason: str | None = None
    nearest: str | None = None  # id of the infeasible trial that came nearest to the limits
    selected: str | None = None  # the choice, if it held on test
    verdict: str | None = None  # of the pass over test
    confirm_seconds: float | None = None  # of that pass, with what led to it

    def write(self, folder: Path) -> None:
        """Write optimize.json into `folder`, whole or not at all."""
        write_text(
            folder / OPTIMIZE_JSON, json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        )


def excess_of(accept: Accept, upper: float | None, p95_ms: float | None, size_bytes: int | None) -> float:
    """How far beyond the limit that is broken most, as a share of that limit; 0 or less where all hold."""
    shares = [] if upper is None else [upper / accept.max_drop_points - 1]
    if accept.max_p95_ms is not None and p95_ms is not None:
        shares.append(p95_ms / accept.max_p95_ms - 1)
    if accept.max_size_mb is not None and size_bytes is not None:
        shares.append(size_bytes / (accept.max_size_mb * 1e6) - 1)
    return max(shares, default=0.0)


def nearest_of(trials: list[Trial]) -> Trial | None:
    """The complete trial that breaks its limits least, the faster of equals; None where none breaks any."""
    broken = [trial for trial in trials if trial.state == "complete" and not trial.feasible]
    return min(broken, key=lambda trial: (trial.excess or 0.0, trial.p50_ms or 0.0), default=None)
