"""What several sections ask of a report: the choice, the latency that counts, the constraints and whether they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from compress.evidence.noninferiority import LEVEL
from compress.report.schema import Latency, Report, Variant
from compress.report.wording import (
    NBSP,
    capital,
    fixed,
    interval,
    milliseconds,
    p_value,
    percentage,
    plural,
    points,
    short,
    size,
)

NO_LIMIT = "no limit set"
_BUSY = (
    0.15  # so far apart are a speed-up by the clock and one by processor time only where other programs computed too
)


def single(variant: Variant) -> Latency | None:
    """The latency that constraints and speed-ups are about: batch 1, 1 thread. None where it was not measured."""
    return next((at for at in variant.latency_ms if at.batch == 1 and at.threads == 1), None)


def median(variant: Variant) -> float | None:
    """Median milliseconds from bytes to label, batch 1, 1 thread."""
    at = single(variant)
    return at.total_p50 if at else None


def work(variant: Variant) -> float | None:
    """Median milliseconds of processor time, batch 1, 1 thread."""
    at = single(variant)
    return at.processor_p50 if at else None


def by_the_clock(base: Variant, variant: Variant) -> float | None:
    """How many times as fast as `base` by the clock; None where that is about what processor time says."""
    before, after = single(base), single(variant)
    ratio = before.total_p50 / after.total_p50 if before and after else variant.speedup
    return ratio if abs(ratio / variant.speedup - 1) > _BUSY else None


def tail(variant: Variant, threads: int = 1) -> float | None:
    """The 95th percentile at batch 1 and so many threads."""
    at = next((at for at in variant.latency_ms if at.batch == 1 and at.threads == threads), None)
    return at.total_p95 if at else None


def baseline(report: Report) -> Variant:
    return report.variant(report.baseline)


def chosen(report: Report) -> Variant | None:
    """The choice frozen on validation, whether or not it held; None where nothing could be chosen."""
    wanted = report.selected or report.choice.id
    return next((variant for variant in report.variants if variant.id == wanted), None)


def compared(report: Report) -> list[Variant]:
    """Every variant but the baseline."""
    return [variant for variant in report.variants if variant.id != report.baseline]


def marks(report: Report, variant: Variant) -> list[str]:
    """The words that single a variant out: baseline, selected, or the choice that failed."""
    found = ["baseline"] if variant.id == report.baseline else []
    if variant.id == report.selected:
        found.append("selected")
    elif report.selected is None and variant.id == report.choice.id:
        found.append("choice, failed")
    return found


def quotient(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def metric_name(metric: str) -> str:
    """The recipe's metric in words."""
    if metric.startswith("recall:"):
        return f"recall of “{short(metric.removeprefix('recall:'), 40)}”"
    return {"macro_f1": "macro F1"}.get(metric, metric)


@dataclass(frozen=True)
class Check:
    """One constraint on one variant. `holds` is None where the recipe sets no limit or nothing was measured.

    `excess` is how far past the limit it is, as a share of the limit; 0 where it holds.
    """

    name: str
    brief: str  # what is limited, in a word
    required: str
    measured: str
    detail: str
    holds: bool | None
    excess: float = 0.0

    @property
    def failure(self) -> str:
        return f"{self.name}: {self.measured}, required {self.required}."


def checks(report: Report, variant: Variant) -> list[Check]:
    """The recipe's constraints on `variant`, measured on the test split."""
    return [_margin_check(report, variant), _latency_check(report, variant), _size_check(report, variant)]


def _margin_check(report: Report, variant: Variant) -> Check:
    margin, target = report.constraints.max_drop_points, report.constraints.target_percent
    low, upper = variant.metric_drop_points_ci95
    if target is not None:
        span = interval(target - upper, target - low)
        return Check(
            name=f"{capital(metric_name(report.constraints.metric))}, lower limit",
            brief=metric_name(report.constraints.metric),
            required=f"at least {percentage(target - margin)}",
            measured=percentage(target - upper),
            detail=f"measured {fixed(target - variant.metric_drop_points)}, interval {span}",
            holds=_within(upper, margin),
            excess=_excess(upper, margin),
        )
    return Check(
        name=f"Drop in {metric_name(report.constraints.metric)}, upper limit",
        brief="drop",
        required=f"at most {points(margin)}",
        measured=points(upper),
        detail=f"measured {fixed(variant.metric_drop_points)}, interval {interval(low, upper)}{_exact(variant)}",
        holds=upper <= margin and (variant.margin_p is None or variant.margin_p <= LEVEL),
        excess=_excess(upper, margin),
    )


def _exact(variant: Variant) -> str:
    return "" if variant.margin_p is None else f"; exact test p{NBSP}{p_value(variant.margin_p)}"


def _latency_check(report: Report, variant: Variant) -> Check:
    limit, measured = report.constraints.max_p95_ms, tail(variant, report.constraints.threads)
    return Check(
        name="Latency, 95th percentile",
        brief="latency",
        required=NO_LIMIT if limit is None else f"at most {milliseconds(limit)}",
        measured=milliseconds(measured),
        detail=f"bytes to label, batch 1, {plural(report.constraints.threads, 'thread')}",
        holds=None if measured is None else _within(measured, limit),
        excess=0.0 if measured is None else _excess(measured, limit),
    )


def _size_check(report: Report, variant: Variant) -> Check:
    limit, size_mb = report.constraints.max_size_mb, variant.size_bytes / 1e6
    return Check(
        name="Size of the package",
        brief="size",
        required=NO_LIMIT if limit is None else f"at most {size(1e6 * limit)}",
        measured=size(variant.size_bytes),
        detail="every file that decides an answer",
        holds=_within(size_mb, limit),
        excess=_excess(size_mb, limit),
    )


def _within(value: float, limit: float | None) -> bool | None:
    return None if limit is None else value <= limit


def _excess(value: float, limit: float | None) -> float:
    if limit is None or value <= limit or not math.isfinite(value):
        return 0.0
    return (value - limit) / limit if limit > 0 else value - limit


def failed(checked: Iterable[Check]) -> list[Check]:
    return [check for check in checked if check.holds is False]


def nearest(report: Report) -> Variant | None:
    """The student or exported teacher that misses the constraints on test by the least; None without any."""
    candidates = [one for one in compared(report) if one.role != "control" and one.runtime == "onnxruntime"]

    def distance(variant: Variant) -> tuple[int, float]:
        missed = failed(checks(report, variant))
        return len(missed), sum(check.excess for check in missed)

    return min(candidates, key=distance, default=None)


def reasons(report: Report, variant: Variant) -> list[str]:
    """Why `variant` was rejected: as recorded, or else from the constraints themselves."""
    if variant.reasons or variant.verdict == "accepted":
        return variant.reasons
    return [check.failure for check in failed(checks(report, variant))]
