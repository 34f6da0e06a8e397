"""Put the evidence of a run together: a `Report`, with the verdicts that the test split gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.evidence.abstain import answered_on, promise_problems
from compress.evidence.advice import advise
from compress.evidence.audit import audit, exemplars, promise_facts, temperature_facts
from compress.evidence.choose import problems_of
from compress.evidence.drops import exact_problems, judged_drop, margin_p, share_drop
from compress.evidence.examples import examples
from compress.evidence.groups import group_changes, group_problems
from compress.evidence.sentence import verdict_sentence
from compress.evidence.statistics import accuracy_interval, mcnemar
from compress.measure.latency import reference_point, speedup
from compress.packaging import PackageResult
from compress.recipe import Accept
from compress.report import schema
from compress.variants import BASELINE, parents
from compress.variants import Variant as Plan
from train.data import Data
from train.fit_result import FitResult, Refit
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
    run: schema.RunInfo,
    accept: Accept,
    data: Data,
    choice: schema.Choice,
    evidence: list[Evidence],
    seed: int,
    threads: int = 1,
    baseline: str = BASELINE,
    shown: int = 0,
) -> schema.Report:
    """The report; limits on latency are judged at `threads`, and drops from the variant `baseline`.

    `shown` is how many of the choice's flips the report shows.
    `selected` is the choice if it held on test, and nothing otherwise: no swap for a luckier one.
    """
    base = next(item for item in evidence if item.plan.id == baseline)
    variants = [_variant(item, base, accept, data, seed, threads) for item in evidence]
    _add_audits(variants, evidence, base, accept, data, seed)
    chosen = next(variant for variant in variants if variant.id == choice.id)
    held = chosen.verdict == "accepted"
    return schema.Report(
        run=run,
        task=data.task,
        data=_data_info(data),
        constraints=schema.Constraints(**accept.model_dump(), threads=threads),
        baseline=baseline,
        choice=choice,
        selected=chosen.id if held else None,
        verdict=verdict_sentence(chosen, variants[0], accept),
        advice=advise(variants),
        training={item.plan.model: _epochs(item.fit) for item in evidence},
        training_notes={item.plan.model: _notes(item.fit) for item in evidence},
        refits={item.plan.model: schema.Refit(**item.fit.refit.model_dump()) for item in evidence if item.fit.refit},
        variants=variants,
        examples=examples(data, base.scores, _scores(evidence, choice.id), shown),
        exemplars=_exemplars(evidence, base, data),
        preprocessing=_preprocessing(chosen.id, evidence),
    )


def _scores(evidence: list[Evidence], variant: str) -> np.ndarray:
    return next(item.scores for item in evidence if item.plan.id == variant)


def _preprocessing(chosen: str, evidence: list[Evidence]) -> dict[str, Any]:
    package = next(item.package for item in evidence if item.plan.id == chosen)
    assert package is not None
    return package.preprocessing.model_dump(mode="json")


def _add_audits(
    variants: list[schema.Variant],
    evidence: list[Evidence],
    base: Evidence,
    accept: Accept,
    data: Data,
    seed: int,
) -> None:
    """What the accuracy of each variant hides, also of its groups, which may reject it; of the first of its parents."""
    labels, theirs, margin = data.splits["test"].labels, base.scores.argmax(axis=1), accept.max_group_drop_points
    by_id = {item.plan.id: item for item in evidence}
    for variant, item in zip(variants, evidence, strict=True):
        if item is not base:
            parent = next((by_id[name] for name in variant.parents if name in by_id), None)
            told = None if parent is None else (parent.plan.id, parent.scores)
            variant.audit = audit(item.scores, base.scores, told, labels, data.classes, seed)
            if data.test_groups:
                ours = item.scores.argmax(axis=1)
                variant.audit.groups = group_changes(ours, theirs, labels, data.test_groups, margin)
                variant.reasons += group_problems(variant.audit.groups, margin)
                variant.verdict = "rejected" if variant.reasons else "accepted"


def _exemplars(evidence: list[Evidence], base: Evidence, data: Data) -> list[schema.Exemplar]:
    answers = [item.scores.argmax(axis=1) for item in evidence if item.package and item.plan.role != "control"]
    test = data.splits["test"]
    return exemplars(answers, base.scores.argmax(axis=1), test.labels, test.origins, data.classes)


def _variant(item: Evidence, base: Evidence, accept: Accept, data: Data, seed: int, threads: int) -> schema.Variant:
    labels = data.splits["test"].labels
    metrics = measure(item.scores, labels)
    ours, theirs = item.scores.argmax(axis=1), base.scores.argmax(axis=1)
    drop = share_drop(ours == labels, theirs == labels)
    metric_drop = judged_drop(accept, item.scores, base.scores, labels, data.classes, seed)
    assert drop.lost is not None
    assert drop.gained is not None
    reference, own = reference_point(base.latency), reference_point(item.latency)
    judged = reference_point(item.latency, threads)
    is_free = item is base and item.package is None  # the teacher as users run it; nobody asks it to keep limits
    exact = None if is_free else margin_p(accept, metric_drop)
    reasons = exact_problems(accept, metric_drop, exact)
    promise = None if item.package is None else item.package.abstention
    answered = None if promise is None or promise.below is None else answered_on(item.scores, labels, promise.below)
    reasons += promise_problems(promise, answered)
    if not is_free:
        reasons = problems_of(accept, metric_drop.high, judged, item.size_bytes) + reasons
    if reasons and item.package is not None and item.package.collapse:
        reasons = [item.package.collapse, *reasons]  # the cause before its effect
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
        margin_p=exact,
        mcnemar_p=mcnemar(drop.lost, drop.gained),
        **temperature_facts(item.scores, labels, 1.0 if item.package is None else item.package.temperature),
        abstention=promise_facts(promise, answered),
        latency_ms=item.latency,
        speedup=speedup(reference, own),
        speedup_compute=reference.compute_p50 / own.compute_p50,
        peak_rss_mb=item.peak_rss_mb,
        parity=schema.Parity(split="validation", **item.package.parity.model_dump()) if item.package else None,
        batch_invariant=item.batch_invariant,
        graph=item.package.graph if item.package else {},
        notes=item.package.notes if item.package else [],
        tried=[schema.Tried.model_validate(row) for row in item.package.tried] if item.package else [],
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
        **{name: getattr(metrics, name) for name in _SHARED_METRICS},
    )


_SHARED_METRICS = ("n", "errors", "accuracy", "macro_f1", "macro_precision", "macro_recall", "ece")


def _per_class(metrics: Metrics, classes: tuple[str, ...]) -> list[schema.ClassScore]:
    rows = zip(classes, metrics.support, metrics.precision, metrics.recall, metrics.f1, strict=True)
    return [
        schema.ClassScore(label=label, n=int(n), precision=float(precision), recall=float(recall), f1=float(f1))
        for label, n, precision, recall, f1 in rows
    ]


def _epochs(fit: FitResult) -> list[schema.Epoch]:
    return [schema.Epoch.model_validate(record.model_dump()) for record in fit.epochs]


def _notes(fit: FitResult) -> list[str]:
    arithmetic = [f"trained in {fit.precision}: {fit.precision_why}"] if fit.precision_why else []
    return [*arithmetic, *fit.notes, *([] if fit.refit is None else [_refit_note(fit.refit)])]


def _refit_note(refit: Refit) -> str:
    if not refit.items:
        return (
            "refitted: trained again from the same start on the same unlabelled items, by the answers of teachers as "
            f"they are now, to the end of epoch {refit.epochs}, which was the best on validation; the curve is of that "
            "first training"
        )
    return (
        f"refitted: trained again from the same start on the {refit.items:,} items of train, validation and "
        f"calibration, to the end of epoch {refit.epochs}, which was the best on validation when it was trained on the "
        f"{refit.items_before:,} of train; the curve is of that first training"
    )


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
