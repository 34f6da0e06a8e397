"""How fast a package is with each runtime setting, and which setting it is to be served with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from compress.measure.latency import measure_latency, reference_point
from compress.report.schema import Latency
from serve.manifest import GraphLevel
from serve.predictor import Predictor

# A setting other than the usual one must be faster by this: less is noise on a busy machine.
WORTH_IT = 0.95
_REFERENCE = "reference"


class Timed(BaseModel):
    """A package with one runtime setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int
    graph_level: GraphLevel
    latency: Latency  # batch 1
    relative: float  # p50 over that of the reference at 1 thread, timed in turns with it


class Timings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: dict[str, list[Timed]]  # by the name that was given


def time_packages(
    packages: Mapping[str, Path],
    reference: Path,
    items: Sequence[bytes],
    threads: Sequence[int],
    levels: Sequence[GraphLevel],
    samples: int,
    seed: int,
) -> Timings:
    """Time packages at each setting, in turns with the package `reference` at 1 thread and level "all".

    Where a graph cannot be loaded at a level, that level is left out; "all" must do.
    """
    plans = {f"{name} {level}": (path, level) for name, path in packages.items() for level in levels}

    def open_runner(plan: str, count: int) -> Predictor:
        path, level = (reference, "all") if plan == _REFERENCE else plans[plan]
        return Predictor.load(path, 1 if plan == _REFERENCE else count, level)  # type: ignore[arg-type]

    measured = measure_latency(open_runner, [_REFERENCE, *plans], items, (1,), threads, samples, seed).variants
    found: dict[str, list[Timed]] = {name: [] for name in packages}
    for name in packages:
        for count in threads:
            beside = reference_point(measured[_REFERENCE], count).total_p50
            for level in levels:
                latency = reference_point(measured[f"{name} {level}"], count)
                timed = Timed(threads=count, graph_level=level, latency=latency, relative=latency.total_p50 / beside)
                found[name].append(timed)
    return Timings(packages=found)


def best_setting(timed: Sequence[Timed]) -> Timed:
    """The fastest setting, and the first of them where no other is clearly faster: fewer threads, level "all" first."""
    ordered = sorted(timed, key=lambda one: (one.threads, one.graph_level != "all"))
    best = ordered[0]
    for one in ordered[1:]:
        if one.relative < WORTH_IT * best.relative:
            best = one
    return best
