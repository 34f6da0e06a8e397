"""What a benchmark found, as tables and JSON: where it was measured, the roofline, targets beside measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kernels.bench.measure import Contender, Result
from kernels.bench.roofline import Roofline
from kernels.machine import Machine

SCHEMA = 1
COPY_TARGET, REPEAT_TARGET = 0.85, 0.03  # of the datasheet's bandwidth; between the first and the last copy


def times(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows of: case, contender, median, the middle 60 %, rate, share of the roof, times ours, error or reason."""
    found: list[tuple[str, ...]] = []
    for result in results:
        if result.skipped:
            found.append((result.case.title, "", "", "", "", "", "", result.skipped))
        found += [_row(result, each) for each in result.contenders]
    return found


def targets(results: Sequence[Result], first: Roofline, last: Roofline | None) -> list[tuple[str, str, str, str]]:
    """Rows of: what, wanted, measured, met."""
    rows = []
    if first.datasheet_gb_s:
        share = first.copy_gb_s / first.datasheet_gb_s
        rows.append(("copy", f">= {COPY_TARGET:.0%} of the datasheet", f"{share:.1%}", _met(share >= COPY_TARGET)))
    if last is not None:
        apart = abs(last.copy_gb_s / first.copy_gb_s - 1)
        rows.append(
            ("copy, measured again", f"within {REPEAT_TARGET:.0%}", f"{apart:.1%}", _met(apart <= REPEAT_TARGET))
        )
    for result in results:
        for outcome in result.outcomes:
            rows.append(
                (result.case.title, outcome.target, _measured(outcome.target, outcome.measured), _met(outcome.met))
            )
        if not result.outcomes:
            missing = result.skipped or "not measured"
            rows += [(result.case.title, str(target), missing, "?") for target in result.case.targets]
    return rows


def all_met(results: Sequence[Result]) -> bool:
    """Whether every case was measured, is right, and reached its targets."""
    return all(not result.wrong and not result.skipped for result in results) and all(
        outcome.met for result in results for outcome in result.outcomes
    )


def as_json(
    results: Sequence[Result], first: Roofline, last: Roofline | None, machine: Machine, clocks: dict[str, str]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "machine": asdict(machine),
        "clocks": clocks,
        "roofline": asdict(first),
        "roofline_again": None if last is None else asdict(last),
        "cases": [_case(result) for result in results],
        "targets": [
            dict(zip(("what", "wanted", "measured", "met"), row, strict=True)) for row in targets(results, first, last)
        ],
    }


def write(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _row(result: Result, each: Contender) -> tuple[str, ...]:
    if each.times is None:
        return (result.case.title, each.name, "", "", "", "", "", each.failed or "")
    ours, unit = result.median_ms("limbeck"), "GB/s" if result.case.roof == "copy" else "TFLOP/s"
    rate = result.moved / each.times.median_ms / (1e6 if unit == "GB/s" else 1e9)
    of_roof = "" if result.of_roof is None or ours is None else f"{result.of_roof * ours / each.times.median_ms:.1%}"
    return (
        result.case.title,
        each.name,
        f"{each.times.median_ms:.4f} ms",
        f"{each.times.p20_ms:.4f} to {each.times.p80_ms:.4f}",
        f"{rate:,.0f} {unit}",
        of_roof,
        "" if ours is None else f"{each.times.median_ms / ours:.2f}x",
        "" if each.error is None else f"error {each.error:.2g} of the tolerance",
    )


def _case(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "kernel": case.kernel,
        "case": case.name,
        "mode": case.mode,
        "rows": result.rows,
        "roof": case.roof,
        "moved": result.moved,
        "of_roof": result.of_roof,
        "skipped": result.skipped,
        "contenders": [asdict(each) for each in result.contenders],
        "targets": [asdict(outcome) for outcome in result.outcomes],
    }


def _measured(target: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1%}" if target.endswith("roof") else f"{value:.2f}x"


def _met(met: bool | None) -> str:
    return "?" if met is None else "yes" if met else "no"
