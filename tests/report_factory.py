"""Made-up reports whose figures agree with each other: predictions are drawn, everything else is counted from them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from compress.report.schema import (
    Candidate,
    Choice,
    ClassScore,
    Constraints,
    DataInfo,
    Epoch,
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
MAX_P95_MS, MAX_SIZE_MB = 2.0, 0.5
# precision: (milliseconds of a student, bytes for each parameter, items out of 1,000 answered otherwise)
PRECISIONS = {
    "fp32": (0.62, 4.0, 0),
    "fp16": (0.66, 2.0, 1),
    "int8-static": (0.23, 1.1, 4),
    "int8-dynamic": (0.41, 1.1, 5),
}


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
    base = _answers(rng, truth, truth, 0.08, len(labels))
    variants = [_variant(BASELINE, "teacher", "teacher", "fp32", "torch", labels, truth, base, base, 5.2, margin)]
    variants.append(
        _variant("teacher-fp32", "teacher", "teacher", "fp32", "onnxruntime", labels, truth, base, base, 3.1, margin)
    )
    for at, student in enumerate(students):
        for role, name, noise in (("student", student, 0.012), ("control", f"{student}-alone", 0.04)):
            if role == "control" and not controls:
                continue
            float_answers = _answers(rng, base, truth, noise / (1 + 0.4 * at), len(labels))
            for precision in precisions:
                answers = _answers(rng, float_answers, truth, PRECISIONS[precision][2] / 1000, len(labels))
                ms = PRECISIONS[precision][0] * (1 + 0.8 * at)
                variants.append(
                    _variant(
                        f"{name}-{precision}",
                        name,
                        role,
                        precision,
                        "onnxruntime",
                        labels,
                        truth,
                        base,
                        answers,
                        ms,
                        margin,
                    )
                )
    return _report(list(labels), variants, accepted, margin)


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


def _variant(
    ident: str,
    name: str,
    role: str,
    precision: str,
    runtime: str,
    labels: Sequence[str],
    truth: list[int],
    base: list[int],
    answers: list[int],
    ms: float,
    margin: float,
) -> Variant:
    n, k = len(truth), len(labels)
    confusion = [[0] * k for _ in range(k)]
    for true, answer in zip(truth, answers, strict=True):
        confusion[true][answer] += 1
    right = sum(confusion[at][at] for at in range(k))
    lost = sum(b == t != a for t, b, a in zip(truth, base, answers, strict=True))
    gained = sum(a == t != b for t, b, a in zip(truth, base, answers, strict=True))
    drop, half = 100 * (lost - gained) / n, 196 * math.sqrt(max(lost + gained, 1)) / n
    interval = (0.0, 0.0) if runtime == "torch" else (drop - half, drop + half)
    accuracy, scores = right / n, _per_class(labels, confusion)
    params = 272_474 if role == "teacher" else 77_850
    size_bytes = round(params * PRECISIONS[precision][1]) + 9_000
    reasons = _reasons(role, interval[1], margin, 1.13 * ms, size_bytes)
    return Variant(
        id=ident,
        name=name,
        role=role,
        runtime=runtime,
        provider="cpu" if runtime == "torch" else "CPUExecutionProvider",
        precision=precision,
        package_id=None if runtime == "torch" else "9f2c4e1ab07d3356",
        parents=[] if runtime == "torch" else [BASELINE],
        params=params,
        size_bytes=size_bytes,
        macs=params * 150,
        n=n,
        errors=n - right,
        accuracy=accuracy,
        accuracy_ci95=(max(0, accuracy - 0.011), min(1, accuracy + 0.011)),
        macro_f1=sum(score.f1 for score in scores) / k,
        macro_precision=sum(score.precision for score in scores) / k,
        macro_recall=sum(score.recall for score in scores) / k,
        per_class=scores,
        confusion=confusion,
        ece=0.021,
        agreement=sum(b == a for b, a in zip(base, answers, strict=True)) / n,
        flips=Flips(lost=lost, gained=gained),
        accuracy_drop_points=drop,
        accuracy_drop_points_ci95=interval,
        metric_drop_points=drop,
        metric_drop_points_ci95=interval,
        mcnemar_p=math.erfc(abs(lost - gained) / math.sqrt(2 * max(lost + gained, 1))),
        latency_ms=_latencies(ms),
        speedup=5.2 / ms,
        speedup_compute=4.6 / ms,
        peak_rss_mb=412.0 if runtime == "torch" else 96.4,
        parity=_parity(runtime, precision, n),
        batch_invariant=precision != "int8-dynamic",
        graph={"nodes": 63, "convolutions": 9, "int8_convolutions": 9, "skipped": ["head"]}
        if "int8" in precision
        else {"nodes": 41},
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
    )


def _reasons(role: str, upper: float, margin: float, p95: float, size_bytes: int) -> list[str]:
    found = {
        "a control is never selected": role == "control",
        f"the drop may be as much as {upper:.2f} points, over {margin:.2f}": upper > margin,
        f"p95 is {p95:.2f} ms, over {MAX_P95_MS}": p95 > MAX_P95_MS,
        f"it is {size_bytes / 1e6:.2f} MB, over {MAX_SIZE_MB}": size_bytes > 1e6 * MAX_SIZE_MB,
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
    return [
        Latency(
            batch=batch,
            threads=threads,
            total_p50=ms * batch**0.8 / threads**0.6,
            total_p95=1.13 * ms * batch**0.8 / threads**0.6,
            total_p99=1.31 * ms if batch == 1 else None,
            compute_p50=0.82 * ms * batch**0.8 / threads**0.6,
            n=1000 if batch == 1 else 200,
        )
        for batch in (1, 16)
        for threads in (1, 2)
    ]


def _parity(runtime: str, precision: str, n: int) -> Parity | None:
    if runtime == "torch":
        return None
    far = precision.startswith("int8")
    against = "fp32" if far else "torch"
    return Parity(
        against=against, split="validation", n=n, max_abs=0.083 if far else 2.4e-6, disagreements=7 if far else 0
    )


def _report(labels: list[str], variants: list[Variant], accepted: bool, margin: float) -> Report:
    students = [variant for variant in variants if variant.role == "student"]
    good = [variant for variant in students if variant.verdict == "accepted"]
    choice = min(
        good if accepted else students, key=lambda variant: variant.latency_ms[0].total_p50, default=variants[1]
    )
    if not accepted and choice.verdict == "accepted":
        choice.verdict, choice.reasons = (
            "rejected",
            [f"the drop may be as much as {margin + 0.61:.2f} points, over {margin:.2f}"],
        )
    upper = choice.accuracy_drop_points_ci95[1]
    return Report(
        run=RunInfo(
            name="cifar10-resnet20",
            created="2025-11-14T10:32:07+00:00",
            seed=7,
            limbeck="0.1.0",
            git_commit="4ad5969cafe0123456789abcdef0123456789abc",
            versions={"python": "3.11.2", "torch": "2.9.1", "onnxruntime": "1.23.2"},
            hardware={
                "cpu": "Intel Xeon Platinum 8481C",
                "cores": 2,
                "memory_gb": 23.5,
                "cpu_flags": ["avx512_vnni", "amx_int8"],
                "gpu": None,
            },
            stages={"teacher": 612.4, "students": 1310.8, "export": 14.2, "quantize": 9.7, "evaluate": 188.0},
            command="limbeck run cifar10",
        ),
        task="image",
        data=DataInfo(
            source="parquet:${LIMBECK_DATA}/cifar10",
            labels=labels,
            splits={
                split: SplitInfo(size=size, fingerprint=f"{at}c0ffee{at}" * 8)
                for at, (split, size) in enumerate(
                    {"train": 44_000, "calibration": 1000, "validation": 5000, "test": variants[0].n}.items()
                )
            },
            fingerprint="ab12cd34" * 8,
        ),
        constraints=Constraints(
            metric="accuracy", max_drop_points=margin, max_p95_ms=MAX_P95_MS, max_size_mb=MAX_SIZE_MB, prefer="latency"
        ),
        baseline=BASELINE,
        choice=Choice(
            id=choice.id,
            reason="The fastest of the candidates whose drop on validation stays within the margin.",
            ranking=_ranking(students, margin),
        ),
        selected=choice.id if accepted else None,
        verdict=(
            f"{choice.id} is {choice.speedup:.0f} times as fast as the teacher and loses at most {upper:.1f} points."
            if accepted
            else f"{choice.id} was chosen on validation but lost too much accuracy on test, so nothing is selected."
        ),
        advice=[
            "resnet14 gains 0.3 points over resnet8 for 0.2 ms more.",
            "Dynamic int8 is slower than static int8 here.",
        ],
        training={
            name: [
                Epoch(epoch=at, loss=1.9 * 0.86**at + 0.1, accuracy=0.93 - 0.5 * 0.8**at, seconds=16.2)
                for at in range(1, 21)
            ]
            for name in dict.fromkeys(variant.name for variant in variants)
        },
        variants=variants,
        preprocessing={
            "kind": "image",
            "color": "RGB",
            "resize": "exact",
            "interpolation": "bilinear",
            "size": [32, 32],
        },
        teacher_licence="apache-2.0",
    )


def _ranking(students: list[Variant], margin: float) -> list[Candidate]:
    return [
        Candidate(
            id=variant.id,
            eligible=variant.accuracy_drop_points_ci95[1] <= margin,
            drop_points=variant.accuracy_drop_points,
            drop_points_upper=variant.accuracy_drop_points_ci95[1],
            total_p50_ms=variant.latency_ms[0].total_p50,
            total_p95_ms=variant.latency_ms[0].total_p95,
            size_bytes=variant.size_bytes,
            why="within the margin"
            if variant.accuracy_drop_points_ci95[1] <= margin
            else "could lose more than the margin",
        )
        for variant in sorted(students, key=lambda variant: variant.latency_ms[0].total_p50)
    ]
