"""Made-up reports whose figures agree with each other: predictions are drawn, everything else is counted from them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from compress.report.schema import (
    Candidate,
    Choice,
    ClassScore,
    Constraints,
    DataInfo,
    Epoch,
    Example,
    Flips,
    Latency,
    Parity,
    Report,
    RunInfo,
    SplitInfo,
    Variant,
)

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BASELINE = "teacher-torch"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
MAX_P95_MS, MAX_SIZE_MB = 2.0, 0.5
# precision: (milliseconds of a student, bytes for each parameter, share of items answered otherwise)
PRECISIONS = {
    "fp32": (0.62, 4.0, 0.0),
    "fp16": (0.66, 2.0, 0.001),
    "int8-static": (0.23, 1.1, 0.004),
    "int8-dynamic": (0.41, 1.1, 0.005),
}


@dataclass(frozen=True)
class Trial:
    """What every variant is measured against."""

    labels: Sequence[str]
    truth: list[int]
    base: list[int]
    margin: float


@dataclass(frozen=True)
class Made:
    """A model as somebody made it; `ms` is its median at batch 1 and 1 thread."""

    name: str
    role: str
    precision: str = "fp32"
    ms: float = 5.2
    runtime: str = "onnxruntime"

    @property
    def id(self) -> str:
        return f"{self.name}-{self.precision if self.runtime == 'onnxruntime' else 'torch'}"

    @property
    def params(self) -> int:
        return 272_474 if self.role == "teacher" else 77_850

    @property
    def size_bytes(self) -> int:
        return round(self.params * PRECISIONS[self.precision][1]) + 9_000


def make_report(
    labels: Sequence[str] = TEN,
    students: Sequence[str] = ("resnet8", "resnet14"),
    precisions: Sequence[str] = ("fp32", "int8-static"),
    controls: bool = True,
    accepted: bool = True,
    n: int = 2000,
    margin: float = 1.5,
    empty_class: int | None = None,
) -> Report:
    """A report of one teacher, its export, and every student (and its control) in every precision."""
    rng = random.Random(20)
    truth = [rng.randrange(len(labels)) for _ in range(n)]
    truth = [(item + 1) % len(labels) if item == empty_class else item for item in truth]
    trial = Trial(labels, truth, _answers(rng, truth, truth, 0.08, len(labels)), margin)
    teachers = [Made("teacher", "teacher", runtime="torch"), Made("teacher", "teacher", ms=3.1)]
    variants = [_variant(made, trial, trial.base) for made in teachers]
    for at, student in enumerate(students):
        for role, name, noise in (("student", student, 0.012), ("control", f"{student}-alone", 0.04)):
            if role == "control" and not controls:
                continue
            fitted = _answers(rng, trial.base, truth, noise / (1 + 0.4 * at), len(labels))
            for precision in precisions:
                ms, _, noise = PRECISIONS[precision]
                answers = _answers(rng, fitted, truth, noise, len(labels))
                variants.append(_variant(Made(name, role, precision, ms * (1 + 0.8 * at)), trial, answers))
    return _report(list(labels), variants, accepted, margin)


def make_report_with_target(target: float = 90.0, **options: object) -> Report:
    """The same, judged against `target` percent accuracy; the verdicts and the choice stay as they were drawn."""
    report = make_report(**options)
    report.constraints.target_percent = target
    for variant in report.variants:
        low, high = variant.accuracy_ci95
        variant.metric_drop_points = target - 100 * variant.accuracy
        variant.metric_drop_points_ci95 = (target - 100 * high, target - 100 * low)
    return report


def _answers(rng: random.Random, source: list[int], truth: list[int], rate: float, classes: int) -> list[int]:
    """`source` with a share `rate` of the answers changed, most of them to a neighbouring class or to the truth."""
    changed = []
    for item, true in zip(source, truth, strict=True):
        if rng.random() >= rate:
            changed.append(item)
        elif item != true and rng.random() < 0.5:
            changed.append(true)
        else:
            changed.append((true + rng.choice([1, 1, 1, 2, 5])) % classes)
    return changed


def _variant(made: Made, trial: Trial, answers: list[int]) -> Variant:
    served = made.runtime == "onnxruntime"
    int8 = "int8" in made.precision
    quality = _quality(trial, answers, exact=not served)
    reasons = _reasons(made, quality["accuracy_drop_points_ci95"][1], trial.margin)
    return Variant(
        id=made.id,
        name=made.name,
        role=made.role,
        runtime=made.runtime,
        provider="CPUExecutionProvider" if served else "cpu",
        precision=made.precision,
        package_id="9f2c4e1ab07d3356" if served else None,
        parents=[BASELINE] if served else [],
        params=made.params,
        size_bytes=made.size_bytes,
        macs=150 * made.params,
        latency_ms=_latencies(made.ms),
        speedup=5.2 / made.ms,
        speedup_compute=4.6 / made.ms,
        peak_rss_mb=96.4 if served else 412.0,
        parity=_parity(int8, len(trial.truth)) if served else None,
        batch_invariant=made.precision != "int8-dynamic",
        graph={"nodes": 63, "convolutions": 9, "int8_convolutions": 9, "skipped": ["head"]} if int8 else {"nodes": 41},
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
        **quality,
    )


def _quality(trial: Trial, answers: list[int], exact: bool) -> dict[str, object]:
    n, k = len(answers), len(trial.labels)
    confusion = [[0] * k for _ in range(k)]
    for true, answer in zip(trial.truth, answers, strict=True):
        confusion[true][answer] += 1
    threes = list(zip(trial.truth, trial.base, answers, strict=True))
    lost, gained = sum(b == t != a for t, b, a in threes), sum(a == t != b for t, b, a in threes)
    drop, half = 100 * (lost - gained) / n, 196 * math.sqrt(max(lost + gained, 1)) / n
    interval = (0.0, 0.0) if exact else (drop - half, drop + half)
    right = sum(confusion[at][at] for at in range(k))
    scores = _per_class(trial.labels, confusion)
    return {
        "n": n,
        "errors": n - right,
        "accuracy": right / n,
        "accuracy_ci95": (max(0, right / n - 0.011), min(1, right / n + 0.011)),
        "macro_f1": sum(score.f1 for score in scores) / k,
        "macro_precision": sum(score.precision for score in scores) / k,
        "macro_recall": sum(score.recall for score in scores) / k,
        "per_class": scores,
        "confusion": confusion,
        "ece": 0.021,
        "agreement": sum(b == a for _, b, a in threes) / n,
        "flips": Flips(lost=lost, gained=gained),
        "accuracy_drop_points": drop,
        "accuracy_drop_points_ci95": interval,
        "metric_drop_points": drop,
        "metric_drop_points_ci95": interval,
        "mcnemar_p": math.erfc(abs(lost - gained) / math.sqrt(2 * max(lost + gained, 1))),
    }


def _reasons(made: Made, upper: float, margin: float) -> list[str]:
    found = {
        "a control is never selected": made.role == "control",
        f"the drop may be as much as {upper:.2f} points, over {margin:.2f}": upper > margin,
        f"p95 is {1.13 * made.ms:.2f} ms, over {MAX_P95_MS}": 1.13 * made.ms > MAX_P95_MS,
        f"it is {made.size_bytes / 1e6:.2f} MB, over {MAX_SIZE_MB}": made.size_bytes > 1e6 * MAX_SIZE_MB,
    }
    return [reason for reason, applies in found.items() if applies]


def _per_class(labels: Sequence[str], confusion: list[list[int]]) -> list[ClassScore]:
    scores = []
    for at, label in enumerate(labels):
        hits, n, named = confusion[at][at], sum(confusion[at]), sum(row[at] for row in confusion)
        precision, recall = hits / named if named else 0.0, hits / n if n else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        scores.append(ClassScore(label=label, n=n, precision=precision, recall=recall, f1=f1))
    return scores


def _latencies(ms: float) -> list[Latency]:
    found = []
    for batch, threads in ((1, 1), (1, 2), (16, 1), (16, 2)):
        median = ms * batch**0.8 / threads**0.6
        p99, n = (1.31 * median, 1000) if batch == 1 else (None, 200)
        at = {"batch": batch, "threads": threads, "total_p50": median, "total_p95": 1.13 * median}
        spread = [median * share for share in (0.8, 0.85, 0.9, 0.93, 0.97, 1, 1.03, 1.08, 1.13, 1.31, 2.4)]
        found.append(Latency(**at, total_p99=p99, compute_p50=0.82 * median, n=n, quantiles=spread))
    return found


def _parity(int8: bool, n: int) -> Parity:
    if int8:
        return Parity(against="fp32", split="validation", n=n, max_abs=0.083, disagreements=7)
    return Parity(against="torch", split="validation", n=n, max_abs=2.4e-6, disagreements=0)


def _report(labels: list[str], variants: list[Variant], accepted: bool, margin: float) -> Report:
    students = [variant for variant in variants if variant.role == "student"]
    good = [variant for variant in students if variant.verdict == "accepted"]
    choice = min(good if accepted else students, key=lambda found: found.speedup * -1, default=variants[1])
    upper = choice.accuracy_drop_points_ci95[1]
    if not accepted and choice.verdict == "accepted":
        choice.verdict, choice.reasons = "rejected", ["it was made to fail"]
    return Report(
        run=_run(),
        task="image",
        data=_data(labels, variants[0].n),
        constraints=Constraints(
            metric="accuracy",
            max_drop_points=margin,
            max_p95_ms=MAX_P95_MS,
            max_size_mb=MAX_SIZE_MB,
            prefer="latency",
        ),
        baseline=BASELINE,
        choice=Choice(
            id=choice.id,
            reason="The fastest of the candidates whose drop on validation stays within the margin.",
            ranking=[_candidate(variant) for variant in sorted(students, key=lambda found: -found.speedup)],
        ),
        selected=choice.id if accepted else None,
        verdict=f"{choice.id} is {choice.speedup:.0f} times as fast as the teacher and may lose {upper:.1f} points."
        if accepted
        else f"{choice.id} was chosen on validation but lost too much accuracy on test, so nothing is selected.",
        advice=["resnet14 gains 0.3 points over resnet8 for 0.2 ms more.", "Dynamic int8 is slower than static here."],
        examples=[_example(labels, kind, item) for kind, item in (("lost", 7), ("lost", 19), ("gained", 3))],
        training={name: _epochs() for name in dict.fromkeys(variant.name for variant in variants)},
        variants=variants,
        preprocessing={"kind": "image", "color": "RGB", "interpolation": "bilinear", "size": [32, 32]},
        teacher_licence="apache-2.0",
    )


def _example(labels: list[str], kind: str, item: int) -> Example:
    right, wrong = labels[item % len(labels)], labels[(item + 1) % len(labels)]
    before, now = (right, wrong) if kind == "lost" else (wrong, right)
    return Example(
        item=item,
        origin="",
        kind=kind,
        label=right,
        baseline=before,
        baseline_score=0.61,
        choice=now,
        choice_score=0.93,
        text=None if item == 7 else f"Row {item} <b>as it is</b>",
        image=PIXEL if item == 7 else None,
    )


def _run() -> RunInfo:
    return RunInfo(
        name="cifar10-resnet20",
        created="2025-11-14T10:32:07+00:00",
        seed=7,
        limbeck="0.1.0",
        git_commit="4ad5969cafe0123456789abcdef0123456789abc",
        versions={"python": "3.11.2", "torch": "2.9.1", "onnxruntime": "1.23.2"},
        hardware={"cpu": "Intel Xeon Platinum 8481C", "cores": 2, "memory_gb": 23.5, "cpu_flags": ["avx512_vnni"]},
        stages={"teacher": 612.4, "students": 1310.8, "export": 14.2, "quantize": 9.7, "evaluate": 188.0},
        command="limbeck run cifar10",
    )


def _data(labels: list[str], n: int) -> DataInfo:
    sizes = {"train": 44_000, "calibration": 1000, "validation": 5000, "test": n}
    return DataInfo(
        source="parquet:${LIMBECK_DATA}/cifar10",
        labels=labels,
        splits={
            split: SplitInfo(size=size, fingerprint=f"{at}c0ffee{at}" * 8)
            for at, (split, size) in enumerate(sizes.items())
        },
        fingerprint="ab12cd34" * 8,
    )


def _epochs() -> list[Epoch]:
    return [
        Epoch(epoch=at, loss=1.9 * 0.86**at + 0.1, accuracy=0.93 - 0.5 * 0.8**at, seconds=16.2) for at in range(1, 21)
    ]


def _candidate(variant: Variant) -> Candidate:
    eligible = variant.verdict == "accepted"
    return Candidate(
        id=variant.id,
        eligible=eligible,
        drop_points=variant.accuracy_drop_points,
        drop_points_upper=variant.accuracy_drop_points_ci95[1],
        total_p50_ms=variant.latency_ms[0].total_p50,
        total_p95_ms=variant.latency_ms[0].total_p95,
        size_bytes=variant.size_bytes,
        why="within the margin" if eligible else "could lose more than the margin",
    )
