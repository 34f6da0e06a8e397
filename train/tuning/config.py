"""[tune] of a recipe: what to tune, how long, and how a trial is judged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve.errors import SettingError

LEAVE_ONE_OUT = "leave-one-out"

Folds = Annotated[int, Field(ge=0)] | Literal["leave-one-out"]


class TuneConfig(BaseModel):
    """[tune]: a search over fields of the recipe. `search` names each, with a range or a list of values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str  # "teacher" or a student's name
    trials: int = Field(default=20, ge=1)  # a grid has as many as combinations instead
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    prune: bool = True  # end a trial early that does worse than half of those before it at the same epoch
    folds: Folds = 0  # 0: judged on the validation split; else on held-out parts of train and validation
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    search: dict[str, Any]

    @field_validator("folds", mode="before")
    @classmethod
    def _is_a_number_or_leave_one_out(cls, given: Any) -> Any:
        # pydantic would name both halves of the union, and neither as a user knows it
        if given != LEAVE_ONE_OUT and (isinstance(given, bool) or not isinstance(given, int) or given < 0):
            raise SettingError(
                f"expected 0, 2 or more, or '{LEAVE_ONE_OUT}', got {given!r}",
                "0 judges on the validation split, 5 on five stratified folds",
            )
        return given

    @model_validator(mode="after")
    def _makes_sense(self) -> TuneConfig:
        from train.tuning.space import combinations, space_of  # optuna takes a moment, and few recipes are tuned

        if self.folds == 1:
            raise SettingError("folds = 1 leaves nothing to judge on", "expected 0, 2 or more, or 'leave-one-out'")
        space = space_of(self.search)
        if self.sampler == "grid":
            combinations(space)
        return self
