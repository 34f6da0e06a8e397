from __future__ import annotations

from typing import Any

from report_factory import make_report

from compress.evidence.advice import advise
from compress.report.schema import Variant

REPORT = make_report(students=("student",), precisions=("fp32", "int8-static"))


def variant(variant_id: str, compute_ms: float = 1.0, **changes: Any) -> Variant:
    """A variant of the made-up report, with its figures set."""
    base = REPORT.variant(variant_id)
    latency = [
        entry.model_copy(update={"compute_p50": compute_ms, "total_p50": compute_ms + 1}) for entry in base.latency_ms
    ]
    return base.model_copy(update={"latency_ms": latency, "batch_invariant": True, **changes})


def pair(compute_ms: float, **changes: Any) -> list[Variant]:
    """fp32 at 1 ms and 4,000 bytes, and int8 with these figures."""
    changes = {"size_bytes": 1000, **changes}
    fp32 = variant("student-fp32", size_bytes=4000)
    return [fp32, variant("student-int8-static", compute_ms, **changes)]


def test_a_precision_that_is_faster_is_praised_with_its_figures() -> None:
    assert advise(pair(0.25)) == [
        "int8-static makes student 4.0x faster: 0.25 ms against 1 ms in fp32, the model alone."
    ]


def test_a_difference_within_the_noise_is_not_worth_a_sentence() -> None:
    assert advise(pair(0.95)) == []


def test_int8_that_is_slower_is_told_and_explained_only_where_the_model_is_tiny() -> None:
    tiny, large = advise(pair(2.0, macs=10_000)), advise(pair(2.0, macs=10**9))
    assert tiny[0].startswith("int8-static does not pay in time for student: 2 ms against 1 ms")
    assert "so small that converting" in tiny[0]
    assert "so small" not in large[0]


def test_a_precision_that_makes_it_no_smaller_is_told() -> None:
    (sentence,) = advise(pair(1.0, size_bytes=4100))
    assert sentence.startswith("int8-static makes student no smaller (4,100 bytes against 4,000)")


def test_dependence_on_the_batch_is_told() -> None:
    (sentence,) = advise(pair(1.0, batch_invariant=False))
    assert sentence.startswith("The scores of student-int8-static depend on the other items of a batch, so it is run")
    both = [one.model_copy(update={"batch_invariant": False}) for one in pair(1.0)]
    (sentence,) = advise(both)
    assert sentence.startswith(
        "The scores of student-fp32 and student-int8-static depend on the other items of a batch"
    )


def test_what_distillation_earned_is_counted_in_errors_of_the_control() -> None:
    def sentences(student: int, control: int) -> list[str]:
        alone = variant("student-alone-fp32", errors=control)
        return advise([variant("student-fp32", errors=student), alone])

    assert sentences(30, 42) == ["Distillation earned 12 errors for student: 30 errors against 42 alone."]
    assert sentences(42, 30) == ["Distillation cost 12 errors for student: 42 errors against 30 alone."]
    assert sentences(1, 2) == ["Distillation earned 1 error for student: 1 error against 2 alone."]
    assert sentences(30, 30) == ["Distillation earned nothing measurable for student: 30 errors against 30 alone."]


def test_the_baseline_alone_gives_no_advice() -> None:
    assert advise([REPORT.variant(REPORT.baseline), variant("student-fp32")]) == []
