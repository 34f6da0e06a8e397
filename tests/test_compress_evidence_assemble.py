"""From evidence to verdicts, on evidence that was made up: which test items each variant gets wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report_factory import make_report

from compress.evidence.assemble import Evidence, assemble
from compress.packaging import PackageResult, Parity
from compress.recipe import Accept
from compress.report import verdict as verdicts
from compress.report.schema import Choice, Latency, Report
from compress.report.wording import NBSP
from compress.variants import Variant, baseline
from serve.manifest import ImagePreprocessing
from train.data import Data, DataConfig, load_data
from train.epochs import EpochRecord
from train.fit_result import FitResult

TEACHER_WRONG = range(10)  # of the test items, by number
SIZES = {"large": (16, 16)}  # of the images that a model takes
SMALL, LARGE = Variant("small", "student", "fp32"), Variant("large", "student", "int8-static")


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataConfig(source="digits", test=500, validation=100, calibration=50), seed=0)


def evidence(data: Data, plan: Variant, wrong: Iterable[int], ms: float = 1.0, size_bytes: int = 1_000_000) -> Evidence:
    """What would have been measured of a variant that gets the items `wrong` wrong and is sure of itself."""
    answers = data.splits["test"].labels.copy()
    answers[list(wrong)] = (answers[list(wrong)] + 1) % 10
    parity = Parity(against=f"{plan.model}-torch", n=100, max_abs=1e-6, disagreements=0)
    package = PackageResult(
        package_id=f"id of {plan.id}",
        size_bytes=size_bytes,
        parity=parity,
        batch_invariant=True,
        batch_difference=0.0,
        graph={"nodes": 5},
        preprocessing=ImagePreprocessing(color="L", size=SIZES.get(plan.model, (8, 8))),
    )
    return Evidence(
        plan=plan,
        fit=FitResult(
            epochs=[EpochRecord(epoch=1, loss=0.5, accuracy=0.9, seconds=1.0)], best_epoch=1, params=7, macs=70
        ),
        package=package if plan.runtime == "onnxruntime" else None,
        provider="CPUExecutionProvider",
        size_bytes=size_bytes,
        batch_invariant=True,
        latency=[latency(8, 5 * ms), latency(1, ms)],  # the reference point is not the first
        peak_rss_mb=100.0,
        scores=np.eye(10, dtype=np.float32)[answers] * 0.9 + 0.01,
    )


def latency(batch: int, ms: float) -> Latency:
    return Latency(batch=batch, threads=1, total_p50=ms, total_p95=1.5 * ms, total_p99=None, compute_p50=0.8 * ms, n=20)


def teacher(data: Data) -> Evidence:
    return evidence(data, baseline(), TEACHER_WRONG, ms=5.0, size_bytes=4_000_000)


def report(data: Data, chosen: Variant, variants: list[Evidence], **accept: Any) -> Report:
    """The report on `variants` beside the teacher, `chosen` having been frozen on validation."""
    choice = Choice(id=chosen.id, reason="The fastest.", ranking=[])
    limits = Accept(**{"max_drop_points": 2.0, **accept})
    return assemble(make_report().run, limits, data, choice, [teacher(data), *variants], seed=0)


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        (range(11), r"loses 0\.20 points"),
        (TEACHER_WRONG, r"loses 0\.00 points"),
        (range(7), r"gains 0\.60 points"),
    ],
)
def test_a_choice_that_holds_is_selected_in_a_sentence_with_its_interval(data: Data, wrong: range, change: str) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, wrong)])
    low, high = found.variant("small-fp32").metric_drop_points_ci95
    assert found.selected == "small-fp32"
    assert re.fullmatch(
        rf"Accepted: small-fp32 is 4\.0x smaller and 5\.0x faster than the teacher and {change} of accuracy "
        rf"\(95 % interval of the drop {re.escape(f'{low:+.2f} to {high:+.2f}')}, 500 test items\), "
        r"within the margin of 2\.",
        found.verdict,
    )


def test_a_choice_that_fails_is_not_swapped_for_one_that_holds(data: Data) -> None:
    held, failed = evidence(data, SMALL, TEACHER_WRONG), evidence(data, LARGE, range(60))
    found = report(data, LARGE, [held, failed])
    assert found.variant("small-fp32").verdict == "accepted"
    assert found.variant("large-int8-static").verdict == "rejected"
    assert found.selected is None
    assert found.choice.id == "large-int8-static"
    assert found.verdict.startswith("Not accepted: large-int8-static is 4.0x smaller and 5.0x faster than the teacher")
    assert "loses 10.00 points" in found.verdict
    assert "small" not in found.verdict.replace("smaller", "")


REASONS = {
    "drop": r"the drop in accuracy could be up to \d+\.\d\d points \(97\.5 % limit\), over the margin of 2",
    "latency": r"p95 is 1\.5 ms, over 1 ms",
    "size": r"the size is 1 MB, over 0\.5 MB",
}
LIMITS: dict[str, dict[str, float]] = {"drop": {}, "latency": {"max_p95_ms": 1.0}, "size": {"max_size_mb": 0.5}}


@pytest.mark.parametrize(
    "broken", [("drop",), ("latency",), ("size",), ("drop", "latency", "size")], ids=lambda broken: "+".join(broken)
)
def test_each_constraint_that_is_broken_is_named_with_its_figure(data: Data, broken: tuple[str, ...]) -> None:
    wrong = range(60) if "drop" in broken else TEACHER_WRONG
    limits = {name: value for constraint in broken for name, value in LIMITS[constraint].items()}
    found = report(data, SMALL, [evidence(data, SMALL, wrong)], **limits)
    variant = found.variant("small-fp32")
    assert (found.selected, variant.verdict, len(variant.reasons)) == (None, "rejected", len(broken))
    for constraint, reason in zip(broken, variant.reasons, strict=True):
        assert re.fullmatch(REASONS[constraint], reason)
    assert found.verdict.endswith(f", but {'; '.join(variant.reasons)}.")


def test_the_upper_limit_decides_and_not_the_drop_itself(data: Data) -> None:
    small = evidence(data, SMALL, range(13))
    variant = report(data, SMALL, [small]).variant("small-fp32")
    upper = variant.metric_drop_points_ci95[1]
    assert variant.metric_drop_points == pytest.approx(0.6)
    assert upper > 1
    for margin, verdict in ((upper, "accepted"), (upper - 0.01, "rejected")):
        assert report(data, SMALL, [small], max_drop_points=margin).variant("small-fp32").verdict == verdict


def test_limits_are_met_by_a_variant_that_just_reaches_them(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, TEACHER_WRONG)], max_p95_ms=1.5, max_size_mb=1.0)
    assert found.selected == "small-fp32"


def test_the_teacher_breaks_no_limit(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, TEACHER_WRONG)], max_p95_ms=0.001, max_size_mb=0.001)
    assert found.variant("teacher-torch").verdict == "accepted"
    assert found.variant("small-fp32").verdict == "rejected"


def test_a_label_of_its_own_is_judged_on_its_own_items(data: Data) -> None:
    threes = np.flatnonzero(data.splits["test"].labels == data.classes.index("3"))
    small = evidence(data, SMALL, [*TEACHER_WRONG, *threes[-6:]])
    by_accuracy = report(data, SMALL, [small], max_drop_points=10.0)
    by_recall = report(data, SMALL, [small], max_drop_points=10.0, metric="recall:3")
    assert by_accuracy.selected == "small-fp32"
    assert by_recall.selected is None
    variant = by_recall.variant("small-fp32")
    assert variant.metric_drop_points == pytest.approx(100 * 6 / len(threes))
    assert variant.accuracy_drop_points == by_accuracy.variant("small-fp32").metric_drop_points
    assert "points of recall:3 (" in by_recall.verdict


def test_macro_f1_is_written_as_people_write_it(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, range(60))], metric="macro_f1")
    assert "points of macro f1 (" in found.verdict
    assert found.constraints.metric == "macro_f1"


def test_each_variant_is_compared_with_the_teacher_item_by_item(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, [*range(5), 400, 401])], max_drop_points=5.0)
    small = found.variant("small-fp32")
    assert (small.flips.gained, small.flips.lost) == (5, 2)
    assert small.agreement == pytest.approx(1 - 7 / 500)
    assert small.accuracy_drop_points == pytest.approx(-0.6)
    assert (small.speedup, small.speedup_compute) == (5.0, 5.0)


@pytest.mark.parametrize(("chosen", "size"), [(SMALL, [8, 8]), (LARGE, [16, 16])], ids=["small", "large"])
def test_the_preprocessing_told_is_that_of_the_choice(data: Data, chosen: Variant, size: list[int]) -> None:
    found = report(data, chosen, [evidence(data, plan, TEACHER_WRONG) for plan in (SMALL, LARGE)])
    assert found.preprocessing is not None
    assert (found.preprocessing["kind"], found.preprocessing["size"]) == ("image", size)


def test_what_was_measured_stands_in_the_report(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, range(12)), evidence(data, LARGE, range(20), ms=2.0)])
    base, small, large = found.variants
    assert (base.package_id, base.parity, base.graph, base.parents) == (None, None, {}, [])
    assert (small.package_id, small.parents, small.params, small.macs) == ("id of small-fp32", ["teacher-torch"], 7, 70)
    assert large.parents == ["large-fp32"]
    assert small.parity is not None
    assert small.parity.split == "validation"
    assert (small.n, small.errors, small.accuracy) == (500, 12, pytest.approx(0.976))
    assert list(found.training) == ["teacher", "small", "large"]
    assert {name: split.size for name, split in found.data.splits.items()} == {
        name: len(items) for name, items in data.splits.items()
    }
    assert found.data.fingerprint == data.fingerprint
    assert found.data.notes == []


def test_what_was_left_out_of_the_data_stands_in_the_report(data: Data) -> None:
    noted = replace(data, notes=("left out: empty texts: a.csv:17: the text is empty",))
    found = report(noted, SMALL, [evidence(data, SMALL, TEACHER_WRONG)])
    assert found.data.notes == ["left out: empty texts: a.csv:17: the text is empty"]


@pytest.mark.parametrize(
    ("ms", "size_bytes", "words"),
    [
        (5.1, 4_010_000, "no smaller and no faster than the teacher"),
        (10.0, 8_000_000, "2.0x larger and 2.0x slower than the teacher"),
    ],
)
def test_the_sentence_never_calls_a_model_once_smaller(data: Data, ms: float, size_bytes: int, words: str) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, TEACHER_WRONG, ms, size_bytes)])
    assert f"small-fp32 is {words} and loses 0.00 points" in found.verdict


@pytest.mark.parametrize(("processor", "said"), [(2.5, True), (4.9, False), (None, False)])
def test_a_busy_machine_is_told_beside_the_verdict(data: Data, processor: float | None, said: bool) -> None:
    """The teacher's 5 ms by the clock are `processor` ms of work; the student's one is."""
    base, small = teacher(data), evidence(data, SMALL, TEACHER_WRONG)
    base.latency[1].processor_p50, small.latency[1].processor_p50 = processor, processor and 1.0
    choice = Choice(id=SMALL.id, reason="The fastest.", ranking=[])
    found = assemble(make_report().run, Accept(max_drop_points=2.0), data, choice, [base, small], seed=0)
    assert found.variant(SMALL.id).speedup == pytest.approx(processor or 5.0)
    assert (" By the clock it was 5.0x faster: the machine was busy" in found.verdict) == said
    (speed,) = (figure for figure in verdicts.verdict(found).figures if figure.label == "Speed-up")
    assert (
        "2.50 ms → 1.00 ms of processor time; by the clock 5.00 ms → 1.00 ms" in speed.detail.replace(NBSP, " ")
    ) == said


def test_a_teacher_that_only_guesses_is_told_beside_the_verdict(data: Data) -> None:
    labels = data.splits["test"].labels
    commonest = int(np.bincount(labels).argmax())
    wrong = np.flatnonzero(labels != commonest)
    choice = Choice(id=SMALL.id, reason="The fastest.", ranking=[])
    limits = Accept(max_drop_points=2.0)
    for wrongs, told in ((wrong, True), (wrong[1:], False)):
        base = replace(teacher(data), scores=evidence(data, SMALL, wrongs).scores)
        found = assemble(make_report().run, limits, data, choice, [base, evidence(data, SMALL, wrongs)], seed=0)
        assert found.selected == "small-fp32"
        assert (f"no better than always answering '{commonest}' ({len(wrong)} wrong)" in found.verdict) == told


@pytest.mark.parametrize(
    ("wrong", "standing"), [(60, "1.00 points above"), (65, "0.00 points above"), (70, "1.00 points below")]
)
def test_with_a_target_the_sentence_says_where_the_choice_stands_to_it(data: Data, wrong: int, standing: str) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, range(wrong))], target_percent=87.0, max_drop_points=5.0)
    low, high = (100 * end for end in found.variant("small-fp32").accuracy_ci95)
    assert found.selected == "small-fp32"
    assert found.verdict == (
        "Accepted: small-fp32 is 4.0x smaller and 5.0x faster than the teacher and has "
        f"{100 - wrong / 5:.2f} % accuracy, {standing} the target of 87 % (95 % interval of the accuracy "
        f"{low:.2f} to {high:.2f} %, 500 test items), within the margin of 5."
    )


def test_a_target_that_is_missed_is_named_with_the_limit_that_misses_it(data: Data) -> None:
    found = report(data, SMALL, [evidence(data, SMALL, range(60))], target_percent=87.0, max_drop_points=1.0)
    variant = found.variant("small-fp32")
    assert (found.selected, variant.verdict) == (None, "rejected")
    low = f"{100 * variant.accuracy_ci95[0]:.2f} % (97.5 % limit)"
    assert variant.reasons == [f"accuracy could be as low as {low}, under the target of 87 % less the margin of 1"]
    assert found.verdict.endswith(f", but {variant.reasons[0]}.")


def test_a_target_changes_what_is_judged_and_none_of_the_paired_evidence(data: Data) -> None:
    small = evidence(data, SMALL, range(60))
    by_teacher = report(data, SMALL, [small], max_drop_points=5.0)
    by_target = report(data, SMALL, [small], max_drop_points=5.0, target_percent=87.0)
    judged = {"metric_drop_points", "metric_drop_points_ci95", "margin_p", "verdict", "reasons"}
    before, after = by_teacher.variant("small-fp32"), by_target.variant("small-fp32")
    assert before.model_dump(exclude=judged) == after.model_dump(exclude=judged)
    assert (before.metric_drop_points, after.metric_drop_points) == pytest.approx((10.0, -1.0))
    assert (before.verdict, after.verdict) == ("rejected", "accepted")
    assert (by_teacher.constraints.target_percent, by_target.constraints.target_percent) == (None, 87.0)


def test_the_upper_limit_decides_with_a_target_too(data: Data) -> None:
    small = evidence(data, SMALL, range(60))
    lower = 100 * report(data, SMALL, [small]).variant("small-fp32").accuracy_ci95[0]
    for target, verdict in ((lower + 1.5, "accepted"), (lower + 2.01, "rejected")):
        found = report(data, SMALL, [small], target_percent=target, max_drop_points=2.0)
        assert found.variant("small-fp32").verdict == verdict


def test_a_labels_recall_has_a_target_over_its_own_items(data: Data) -> None:
    threes = np.flatnonzero(data.splits["test"].labels == data.classes.index("3"))
    accept: dict[str, Any] = {"metric": "recall:3", "max_drop_points": 40.0, "target_percent": 90.0}
    found = report(data, SMALL, [evidence(data, SMALL, threes[:6])], **accept)
    reached = 100 * (len(threes) - 6) / len(threes)
    assert f"has {reached:.2f} % recall:3, " in found.verdict
    assert f"{len(threes)} test items of this label)" in found.verdict


def test_a_target_that_naming_one_class_would_meet_is_told(data: Data) -> None:
    labels = data.splits["test"].labels
    commonest = int(np.bincount(labels).argmax())
    share = 100 * float((labels == commonest).mean())
    small = evidence(data, SMALL, range(60))
    for target, told in ((share + 1.9, True), (share + 2.1, False)):
        found = report(data, SMALL, [small], target_percent=target, max_drop_points=2.0)
        assert found.selected == "small-fp32"
        assert (f"Beware: always answering '{commonest}' has {share:.2f} % accuracy" in found.verdict) == told


def test_latency_is_judged_with_the_threads_that_serve(data: Data) -> None:
    slow, fast = latency(1, 1.0), latency(1, 0.4).model_copy(update={"threads": 2})
    item = replace(evidence(data, SMALL, TEACHER_WRONG), latency=[slow, fast])
    base = replace(teacher(data), latency=item.latency)
    choice, accept = Choice(id=SMALL.id, reason="", ranking=[]), Accept(max_drop_points=20, max_p95_ms=1.0)
    verdicts = {
        threads: assemble(make_report().run, accept, data, choice, [base, item], 0, threads) for threads in (1, 2)
    }
    assert {threads: report.variant(SMALL.id).verdict for threads, report in verdicts.items()} == {
        1: "rejected",
        2: "accepted",
    }
