"""Put the evidence of a run together: a `Report`, with the verdicts that the test split gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.advice import advise
from compress.choose import limit_problems
from compress.drops import measure_drop, share_drop
from compress.latency import reference_point
from compress.packaging import PackageResult
from compress.recipe import Accept
from compress.report import schema
from compress.statistics import accuracy_interval, mcnemar
from compress.variants import BASELINE, parents
from compress.variants import Variant as Plan
from train.data import Data
from train.fit import FitResult
from train.metrics import Metrics, measure


@dataclass(frozen=True)
class Evidence:
    """Everything measured about one variant."""

    plan: Plan
    fit: FitResult
    package: PackageResult | None  # None for the torch baseline
    provider: str
    size_bytes: int
    batch_invariant: bool
    latency: list[schema.Latency]
    peak_rss_mb: float
    scores: np.ndarray  # float32 [N, K], on test


def assemble(
    run: schema.RunInfo, accept: Accept, data: Data, choice: schema.Choice, evidence: list[Evidence], seed: int
) -> schema.Report:
    """The report. `selected` is the choice if it held on test, and nothing otherwise: no swap for a luckier one."""
    base = next(item for item in evidence if item.plan.id == BASELINE)
    variants = [_variant(item, base, accept, data, seed) for item in evidence]
    chosen = next(variant for variant in variants if variant.id == choice.id)
    held = chosen.verdict == "accepted"
    return schema.Report(
        run=run,
        task=data.task,
        data=_data_info(data),
        constraints=schema.Constraints.model_validate(accept.model_dump()),
        baseline=BASELINE,
        choice=choice,
        selected=chosen.id if held else None,
        verdict=_sentence(chosen, variants[0], accept, data),
        advice=advise(variants),
        training={item.plan.model: _epochs(item.fit) for item in evidence},
        variants=variants,
        preprocessing=_preprocessing(chosen.id, evidence),
    )


def _preprocessing(chosen: str, evidence: list[Evidence]) -> dict[str, Any]:
    package = next(item.package for item in evidence if item.plan.id == chosen)
    assert package is not None
    return package.preprocessing.model_dump(mode="json")


def _variant(item: Evidence, base: Evidence, accept: Accept, data: Data, seed: int) -> schema.Variant:
    labels = data.splits["test"].labels
    metrics = measure(item.scores, labels)
    ours, theirs = item.scores.argmax(axis=1), base.scores.argmax(axis=1)
    drop = share_drop(ours == labels, theirs == labels)
    metric_drop = measure_drop(accept.metric, item.scores, base.scores, labels, data.classes, seed)
    assert drop.lost is not None
    assert drop.gained is not None
    reference, own = reference_point(base.latency), reference_point(item.latency)
    reasons = [] if item.plan.id == BASELINE else _reasons(metric_drop.high, accept, own, item.size_bytes)
    return schema.Variant(
        id=item.plan.id,
        name=item.plan.model,
        role=item.plan.role,
        runtime=item.plan.runtime,
        provider=item.provider,
        precision=item.plan.precision,
        package_id=item.package.package_id if item.package else None,
        parents=parents(item.plan),
        params=item.fit.params,
        size_bytes=item.size_bytes,
        macs=item.fit.macs,
        accuracy_ci95=accuracy_interval(metrics.n - metrics.errors, metrics.n),
        per_class=_per_class(metrics, data.classes),
        confusion=metrics.confusion.tolist(),
        agreement=float((ours == theirs).mean()),
        flips=schema.Flips(lost=drop.lost, gained=drop.gained),
        accuracy_drop_points=drop.points,
        accuracy_drop_points_ci95=(drop.low, drop.high),
        metric_drop_points=metric_drop.points,
        metric_drop_points_ci95=(metric_drop.low, metric_drop.high),
        mcnemar_p=mcnemar(drop.lost, drop.gained),
        latency_ms=item.latency,
        speedup=reference.total_p50 / own.total_p50,
        speedup_compute=reference.compute_p50 / own.compute_p50,
        peak_rss_mb=item.peak_rss_mb,
        parity=schema.Parity(split="validation", **item.package.parity.model_dump()) if item.package else None,
        batch_invariant=item.batch_invariant,
        graph=item.package.graph if item.package else {},
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
        **{name: getattr(metrics, name) for name in _SHARED_METRICS},
    )


_SHARED_METRICS = ("n", "errors", "accuracy", "macro_f1", "macro_precision", "macro_recall", "ece")


def _reasons(upper: float, accept: Accept, own: schema.Latency, size_bytes: int) -> list[str]:
    reasons = []
    if upper > accept.max_drop_points:
        reasons.append(
            f"the drop in {accept.metric} could be up to {upper:.2f} points (97.5 % limit), "
            f"over the margin of {accept.max_drop_points:g}"
        )
    return reasons + limit_problems(accept, own, size_bytes)


def _per_class(metrics: Metrics, classes: tuple[str, ...]) -> list[schema.ClassScore]:
    rows = zip(classes, metrics.support, metrics.precision, metrics.recall, metrics.f1, strict=True)
    return [
        schema.ClassScore(label=label, n=int(n), precision=float(precision), recall=float(recall), f1=float(f1))
        for label, n, precision, recall, f1 in rows
    ]


def _epochs(fit: FitResult) -> list[schema.Epoch]:
    return [schema.Epoch.model_validate(record.model_dump()) for record in fit.epochs]


def _data_info(data: Data) -> schema.DataInfo:
    splits = {
        name: schema.SplitInfo(size=len(items), fingerprint=data.fingerprints[name])
        for name, items in data.splits.items()
    }
    return schema.DataInfo(
        source=data.source,
        labels=list(data.classes),
        splits=splits,
        fingerprint=data.fingerprint,
        notes=list(data.notes),
    )


def _sentence(chosen: schema.Variant, base: schema.Variant, accept: Accept, data: Data) -> str:
    """The verdict, in one sentence that carries its own interval."""
    low, high = chosen.metric_drop_points_ci95
    metric = accept.metric.replace("_", " ")
    points = chosen.metric_drop_points
    change = f"loses {points:.2f} points of {metric}" if points >= 0 else f"gains {-points:.2f} points of {metric}"
    interval = f"95 % interval of the drop {low:+.2f} to {high:+.2f}, {len(data.splits['test']):,} test items"
    size = _times(base.size_bytes / chosen.size_bytes, "smaller", "larger")
    speed = _times(chosen.speedup, "faster", "slower")
    gains = f"{chosen.id} is {size} and {speed} than the teacher and {change} ({interval})"
    if chosen.verdict == "accepted":
        return f"Accepted: {gains}, within the margin of {accept.max_drop_points:g}.{_warning(base)}"
    return f"Not accepted: {gains}, but {'; '.join(chosen.reasons)}.{_warning(base)}"


def _times(ratio: float, above: str, below: str) -> str:
    """A ratio as a reader says it, "4.0x smaller": never "1.0x smaller" or "0.5x faster"."""
    if 0.95 <= ratio < 1.05:
        return f"no {above}"
    return f"{ratio:.1f}x {above}" if ratio > 1 else f"{1 / ratio:.1f}x {below}"


def _warning(base: schema.Variant) -> str:
    """What a margin cannot see: a teacher that has learned nothing is easily equalled."""
    commonest = max(base.per_class, key=lambda score: score.n)
    if base.n - base.errors > commonest.n:
        return ""
    return (
        f" Beware: the teacher itself has {base.errors:,} of {base.n:,} wrong, no better than always answering "
        f"'{commonest.label}' ({base.n - commonest.n:,} wrong): it has learned too little to teach anything."
    )
