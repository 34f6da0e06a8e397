"""The kernel of a loss is kept where it is right on the tensors that the loss gets, and faster; else it says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fused_networks import timer
from kernel_cases import interpreter

from kernels import site_timing
from kernels.fuse import FuseOptions
from kernels.hidden_loss import hidden_loss
from kernels.ledger import Entry
from kernels.loss_choice import NO_NUMBER, Loss, judge_loss
from kernels.runtime import interpreted

pytestmark = interpreter
FORCED = FuseOptions(force=True)
Way = Callable[..., torch.Tensor]


def plain(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student - teacher).square().mean(dim=(1, 2)).sum()


def fused(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return hidden_loss(student, teacher).loss


def wrong_value(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    right = fused(student, teacher)
    return right + 0.01 * right.detach()


def wrong_gradient(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    right = fused(student, teacher)
    return 1.01 * right - 0.01 * right.detach()


def without_gradient(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return fused(student.detach(), teacher) + 0 * student.sum()


def nan(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return fused(student, teacher) * float("nan")


def out_of_resources(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("out of resource: shared memory")


def states(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 4, 5).to(dtype), torch.randn(3, 4, 5).to(dtype)


def judged(way: Way, options: FuseOptions = FORCED, tensors: Any = None, name: str = "a loss") -> Entry:
    student, *others = states() if tensors is None else tensors
    with interpreted():
        return judge_loss(Loss(name, "hidden_loss", plain, way, student, tuple(others)), options)


@pytest.mark.parametrize(
    ("times_ms", "kept", "why"),
    [
        ((3.0, 2.0, 1.0), True, "3.00 times as fast as eager, 2.00 times as torch.compile"),
        ((3.0, 0.9, 1.0), False, "not faster: 3.00 times as fast as eager, 0.90 times as torch.compile"),
        ((1.01, 2.0, 1.0), False, "not faster: 1.01 times as fast as eager, 2.00 times as torch.compile"),
    ],
)
def test_it_is_kept_by_its_times(times_ms: tuple[float, ...], kept: bool, why: str) -> None:
    entry = judged(fused, FuseOptions(timer=timer(*times_ms)))
    assert (entry.site, entry.kernel, entry.kept, entry.why) == ("a loss", "hidden_loss", kept, why)
    assert (entry.eager_ms, entry.compiled_ms, entry.fused_ms) == times_ms
    assert entry.speed_up == pytest.approx(min(times_ms[:2]))
    assert entry.error is not None
    assert entry.error < 1e-6


@pytest.mark.parametrize(("way", "error"), [(wrong_value, 0.01), (wrong_gradient, 0.01), (without_gradient, 1.0)])
def test_a_wrong_one_is_refused_with_its_error_however_fast_it_is(way: Way, error: float) -> None:
    entry = judged(way, FuseOptions(timer=lambda _: pytest.fail("it was timed")))
    assert not entry.kept
    assert entry.error == pytest.approx(error, rel=0.1)
    assert entry.why == f"it is off by {error:.1e} of the largest value, and may be by 5e-05"


def test_what_is_no_number_or_fails_is_refused() -> None:
    entry = judged(nan)
    assert (entry.kept, entry.error) == (False, float("inf"))
    failed = judged(out_of_resources)
    assert (failed.kept, failed.error, failed.why) == (
        False,
        None,
        "it failed: RuntimeError: out of resource: shared memory",
    )

    def never(run: Callable[[], object]) -> float:
        raise torch.OutOfMemoryError("no room to time it")

    assert judged(fused, FuseOptions(timer=never)).why == "it failed: OutOfMemoryError: no room to time it"


def test_a_batch_whose_loss_is_no_number_shows_nothing() -> None:
    student, teacher = states()
    teacher[1, 2, 3] = float("nan")
    assert judged(fused, tensors=(student, teacher)).why == NO_NUMBER


def test_half_precision_is_compared_too() -> None:
    def wrong_in_half(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return fused(student, teacher) if student.dtype == torch.float32 else 1.5 * fused(student, teacher)

    assert judged(fused, tensors=states(torch.bfloat16)).kept
    entry = judged(wrong_in_half, tensors=states(torch.bfloat16))
    assert not entry.kept
    assert entry.error is not None
    assert entry.error < 1e-6  # in fp32
    assert entry.why.startswith("in bfloat16 it is off by 5.0e-01 of the largest value, and may be by 3e-02")


def test_rounding_of_a_loss_that_is_next_to_nothing_is_no_error_of_the_kernel() -> None:
    student, _ = states()
    assert judged(fused, tensors=(student, student + 1e-7)).kept


def test_without_a_gpu_nothing_is_kept_unmeasured() -> None:
    assert judged(fused, FuseOptions()).why == "it is right, but nothing is measured on this device"


def test_like_losses_are_measured_once() -> None:
    asked: list[object] = []

    def count(run: Callable[[], object]) -> float:
        asked.append(run)
        return 1.0

    for name in ("once", "once", "another"):
        judged(fused, FuseOptions(timer=count), name=name)
    assert len(asked) == 2 * 3


def test_what_is_timed_is_forwards_and_backwards_and_the_inputs_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(site_timing, "_compiled_ms", lambda *_: None)  # a compiler takes its time on a CPU
    gradients: list[float] = []

    def observed(way: Way) -> Way:
        def called(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
            assert student.requires_grad
            assert not teacher.requires_grad
            found = way(student, teacher)
            if found.requires_grad:
                found.register_hook(lambda gradient: gradients.append(float(gradient)))
            return found

        return called

    student, teacher = states()
    before, rng = (student.clone(), teacher.clone()), torch.get_rng_state()
    with interpreted():
        entry = judge_loss(
            Loss("timed", "hidden_loss", observed(plain), observed(fused), student, (teacher,)),
            FuseOptions(timer=lambda run: float(run() is not None)),
        )
    assert len(gradients) == 5  # in fp64, plain and fused; then the plain one and the fused one for a clock
    assert entry.compiled_ms is None
    assert entry.eager_ms == entry.fused_ms == 1.0
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])
    assert not student.requires_grad
    assert torch.equal(torch.get_rng_state(), rng)
