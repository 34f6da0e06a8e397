"""`limbeck kernels tune`: the sizes with which each kernel is fastest on this GPU, checked and timed in turn."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from kernels.bench.case import Case, Inputs, error, exact, runner
from kernels.bench.timing import Timer, Times
from kernels.tuning import TRITON_NAMES, Entry, Sizes, Tunable, bucket

TRY_RUNS, CONFIRM_RUNS = 20, 100
_GAIN = 0.99  # of the heuristic's time: what is not faster than that is not worth another configuration
_CHECK_ROWS = 4096  # for which a candidate's result is looked at: every size of a block has edges in it


@dataclass(frozen=True)
class Found:
    """The best sizes for one tunable at one shape; no entry where even the heuristic's failed."""

    op: str
    entry: Entry | None
    tried: int
    refused: dict[str, str]  # sizes that failed or were wrong, and why


@dataclass(frozen=True)
class Search:
    """Where and how to search; `deadline` by `clock`."""

    timer: Timer
    device: torch.device
    arch: int
    gpu: str
    versions: dict[str, str]
    deadline: float
    clock: Callable[[], float] = time.monotonic
    rows: int | None = None  # None: the case's

    def all(self, cases: Iterable[Case]) -> Iterator[Found]:
        """Each tunable at each bucket of shapes once, until the time is over, of which each has an equal share."""
        asked = {
            (tunable.op, TRITON_NAMES[case.dtype], bucket(dict(case.dimensions))): (case, tunable)
            for case in cases
            for tunable in case.tunes
        }
        for left, (case, tunable) in zip(range(len(asked), 0, -1), asked.values(), strict=True):
            now = self.clock()
            if now > self.deadline:
                return
            try:
                yield replace(self, deadline=now + (self.deadline - now) / left).one(case, tunable)
            except Exception as failure:  # a kernel that is wrong here, or too little memory; the others go on
                yield Found(tunable.op, None, 0, {case.title: str(failure)})

    def one(self, case: Case, tunable: Tunable) -> Found:
        """Raises ValueError where even the heuristic's sizes give a wrong result."""
        torch.manual_seed(0)
        dimensions = dict(case.dimensions)
        heuristic = tunable.heuristic(**dimensions)
        checked = case.make(min(case.rows, self.rows or _CHECK_ROWS), self.device)
        right = exact(case, checked)
        inputs = case.make(self.rows or case.rows, self.device)
        run = runner(case, case.ours, inputs)
        medians: dict[str, tuple[float, Sizes]] = {}
        refused: dict[str, str] = {}
        others = [each for each in tunable.candidates(**dimensions) if each != heuristic]
        random.Random(0).shuffle(others)  # where the time is over early, it has looked everywhere a little
        tried = [heuristic, *others]
        for sizes in tried:
            if medians and self.clock() > self.deadline:
                break
            with tunable.forced(sizes):
                if reason := self._wrong(case, checked, right):
                    refused[str(sizes)] = reason
                else:
                    medians[str(sizes)] = Times.of(self.timer(run, TRY_RUNS)).median_ms, sizes
            if sizes == heuristic and refused:
                raise ValueError(f"{case.title}: the heuristic's sizes {sizes}: {reason}")
        best = min(medians.values(), key=lambda pair: pair[0])[1]
        return Found(
            tunable.op, self._confirmed(case, tunable, run, heuristic, best), len(medians) + len(refused), refused
        )

    def _wrong(self, case: Case, inputs: Inputs, right: list[torch.Tensor]) -> str | None:
        try:
            found = error(case, runner(case, case.ours, inputs)(), right)
        except Exception as failure:  # too much shared memory, too many registers: Triton's errors have no common class
            return f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[0]}"[:200]
        return None if found <= 1 else f"wrong: {found:.3g} times the tolerance"

    def _confirmed(
        self, case: Case, tunable: Tunable, run: Callable[[], object], heuristic: Sizes, best: Sizes
    ) -> Entry:
        """The best and the heuristic's timed again, each with more runs: the first times decided among many."""
        both = []
        for sizes in (heuristic, best):
            with tunable.forced(sizes):
                both.append(Times.of(self.timer(run, CONFIRM_RUNS)).median_ms)
        kept, median = (best, both[1]) if both[1] < _GAIN * both[0] else (heuristic, both[0])
        return Entry(
            op=tunable.op,
            arch=self.arch,
            dtype=TRITON_NAMES[case.dtype],
            bucket=bucket(dict(case.dimensions)),
            sizes=kept,
            gpu=self.gpu,
            median_us=round(1000 * median, 2),
            heuristic_us=round(1000 * both[0], 2),
            versions=self.versions,
        )
