"""Each case: first whether it is right, then its time beside the others', then its targets. Bounded in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from kernels.bench.case import (
    AUTOTUNE,
    COMPILE,
    EAGER,
    LIGER,
    OURS,
    Case,
    Function,
    Inputs,
    Target,
    compiled,
    error,
    exact,
    runner,
)
from kernels.bench.roofline import Roofline
from kernels.bench.timing import Timer, Times

RUNS = 100
_SMALL_GPU_BYTES = 60e9  # below, a quarter of the rows
OUT_OF_TIME = "not measured: the time was over"


@dataclass(frozen=True)
class Contender:
    """What one implementation took, or why it was not timed."""

    name: str
    times: Times | None
    error: float | None  # multiples of the tolerance, beside the fp64 reference
    failed: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A target beside what was measured; None where it could not be."""

    target: str
    measured: float | None
    met: bool | None


@dataclass(frozen=True)
class Result:
    """All of one case."""

    case: Case
    rows: int
    moved: int  # bytes or operations
    contenders: tuple[Contender, ...]
    of_roof: float | None = None
    outcomes: tuple[Outcome, ...] = ()
    skipped: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether our kernel failed, or computed something else."""
        return any(each.name == OURS and each.failed not in (None, OUT_OF_TIME) for each in self.contenders)

    def median_ms(self, name: str) -> float | None:
        """Of a contender; of "compile" the better of both ways."""
        names = (COMPILE, AUTOTUNE) if name == COMPILE else (name,)
        found = [each.times.median_ms for each in self.contenders if each.name in names and each.times]
        return min(found, default=None)


@dataclass(frozen=True)
class Bench:
    """Where and how to measure. `inductor` may be another backend where there is no compiler."""

    timer: Timer
    roofline: Roofline
    device: torch.device
    deadline: float  # by `clock`
    clock: Callable[[], float] = time.monotonic
    backend: str = "inductor"
    rows: int | None = None  # None: the case's

    def measure(self, cases: Iterable[Case]) -> Iterator[Result]:
        """A result for each case, as soon as it is known; those that are left when the time is over say so."""
        for case in cases:
            yield self._measure(case)

    def _measure(self, case: Case) -> Result:
        case = replace(case, rows=self.rows or _fitting(case.rows, self.device))
        if self.clock() > self.deadline:
            return Result(case, case.rows, 0, (), skipped=OUT_OF_TIME)
        torch.manual_seed(0)
        torch._dynamo.reset()
        try:
            inputs = case.make(case.rows, self.device)
            right = exact(case, inputs)
        except Exception as failure:  # the fp64 reference may not fit into memory; other cases still count
            return Result(case, case.rows, 0, (), skipped=f"not measured: {_reason(failure)}")
        found: list[Contender] = []
        for name, of in self._contenders(case):
            found.append(self._contend(case, name, of, inputs, right))
            if name == OURS and found[0].failed:
                break  # nobody needs to know how fast a wrong kernel is
        result = Result(case, case.rows, case.moved(inputs), tuple(found))
        result = replace(result, of_roof=_of_roof(result, self.roofline))
        return replace(result, outcomes=tuple(_outcome(result, target) for target in case.targets))

    def _contenders(self, case: Case) -> Iterator[tuple[str, Callable[[], Function]]]:
        yield OURS, lambda: case.ours
        yield EAGER, lambda: case.plain
        yield COMPILE, lambda: compiled(case.plain, backend=self.backend)
        if self.backend == "inductor":
            yield AUTOTUNE, lambda: compiled(case.plain, "max-autotune-no-cudagraphs")
        if case.liger is not None:
            yield LIGER, case.liger
        for name, function in case.others:
            yield name, lambda function=function: function  # type: ignore[misc]

    def _contend(
        self, case: Case, name: str, of: Callable[[], Function], inputs: Inputs, right: list[torch.Tensor]
    ) -> Contender:
        if self.clock() > self.deadline:
            return Contender(name, None, None, OUT_OF_TIME)
        try:
            run = runner(case, of(), inputs)
            wrong_by = error(case, run(), right)
            if name == OURS and not wrong_by <= 1:
                return Contender(name, None, wrong_by, f"wrong: {wrong_by:.3g} times the tolerance")
            return Contender(name, Times.of(self.timer(run, RUNS)), wrong_by)
        except ImportError as missing:
            return Contender(name, None, None, f"not installed: {missing.name}")
        except Exception as failure:  # a contender may fail in any way, and the others still count
            return Contender(name, None, None, _reason(failure))


def _reason(failure: Exception) -> str:
    return f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[0]}"[:200]


def _fitting(rows: int, device: torch.device) -> int:
    if device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < _SMALL_GPU_BYTES:
        return max(rows // 4, 1)
    return rows


def _of_roof(result: Result, roofline: Roofline) -> float | None:
    mine = result.median_ms(OURS)
    return None if mine is None else result.moved / mine / roofline.rate(result.case.roof)


def _outcome(result: Result, target: Target) -> Outcome:
    mine, other = result.median_ms(OURS), result.median_ms(target.against)
    if target.against == "roof":
        measured = result.of_roof
    else:
        measured = None if mine is None or other is None else other / mine
    return Outcome(str(target), measured, None if measured is None else measured >= target.wanted)
