"""How long the next step of a search will take, by what steps like it took: what would not end in time is not begun.

A guess, as what else runs on the machine is not known. The first step of its kind has nothing like it and is begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.report import wording
from train.epochs import EpochRecord

# Precisions that are searched for themselves: on top of static int8 they may take this field of [quantize.mixed].
_SEARCHED = {"int8-mixed": "int8-static"}
# Static int8 looks at the calibration items, for each rewrite of the graph anew. Of MiniLM-L6 on a busy machine fp32
# took 269 s, int8-dynamic 222 s, and int8-static was not done after 390 s.
_DEARER, _BY = ("int8-static", "int8-mixed"), 2.0
_IMPORTS = 10.0  # seconds of the first export of a process, whatever the model, on a busy machine


@dataclass(frozen=True)
class _Packaged:
    model: str
    precision: str
    pace: float
    seconds: float


@dataclass(frozen=True)
class _Trained:
    macs: int
    epoch: float  # seconds


class Forecast:
    """What steps took so far. `searching` are the seconds that int8-mixed may search on top."""

    def __init__(self, searching: float) -> None:
        self._searching = searching
        self._packaged: list[_Packaged] = []
        self._trained: dict[str, _Trained] = {}
        self._shapes: list[float] = []

    def shaped(self, seconds: float) -> None:
        """A student's shape was measured in so many seconds."""
        self._shapes.append(seconds)

    def shape(self) -> float | None:
        """Seconds that the next shape will take: of the last one. None before the first."""
        return self._shapes[-1] if self._shapes else None

    def trained(self, model: str, macs: int, epochs: Sequence[EpochRecord]) -> None:
        """A student was trained for so many epochs in all."""
        if epochs:
            self._trained[model] = _Trained(macs, sum(epoch.seconds for epoch in epochs) / len(epochs))

    def epoch(self, model: str, macs: int) -> float | None:
        """Seconds of an epoch: its own so far, or at least those of the others, in proportion to what they multiply."""
        if model in self._trained:
            return self._trained[model].epoch
        others = [one.epoch * min(1.0, macs / max(one.macs, 1)) for one in self._trained.values()]
        return min(others, default=None)

    def packaged(self, model: str, precision: str, pace: float, seconds: float) -> None:
        """A package was made, timed and scored in so many seconds.

        `pace` is what its fp32 graph takes for an item, over what the teacher's takes.
        """
        if not self._packaged:  # which had to import the exporter, and so says little of the others
            seconds = max(seconds - _IMPORTS, seconds / 10)
        self._packaged.append(_Packaged(model, precision, pace, seconds))

    def package(self, model: str, precision: str, pace: float) -> float | None:
        """Seconds that a package will take: of the last at this precision, in proportion to the pace.

        Of a precision that is the first of its kind, what the dearest of the model's others took. None before these.
        """
        alike = [one for one in self._packaged if one.precision == precision]
        if alike:
            return alike[-1].seconds * pace / alike[-1].pace
        own = [one for one in self._packaged if one.model == model]
        base = [one.seconds for one in own if one.precision == _SEARCHED.get(precision)]
        if not own:
            return None
        factor = _BY if precision in _DEARER and not base else 1.0
        seconds = factor * max(base or [one.seconds for one in own])
        return seconds + (self._searching if precision in _SEARCHED else 0.0)


def too_late(step: str, seconds: float | None, left: float) -> str | None:
    """Why a step of so many seconds is not to be begun where so many are left; None where it is."""
    if left <= 0:
        return f"the budget ended before {step}"
    if seconds is None or seconds <= left:
        return None
    return (
        f"{step} would take about {wording.duration(seconds)}, by what the like took, and "
        f"{wording.duration(left)} of the budget are left"
    )
