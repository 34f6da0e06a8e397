from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, ROWS, close, interpreter, strided, transposed
from planted_bugs import plant

from kernels import distill_loss as module
from kernels import distill_loss_kernels
from kernels.distill_loss import IGNORED, DistillLoss, distill_loss, reference
from kernels.runtime import interpreted
from train.distill.logits import soft_targets
from train.losses import cross_entropy

pytestmark = interpreter
T, ALPHA, BETA = 4.0, 0.9, 0.3
NAN, INF = float("nan"), float("inf")
Logits = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(rows: int, columns: int) -> Logits:
    """Logits of student and teacher, and labels, some of them none."""
    torch.manual_seed(rows * columns)
    labels = torch.randint(columns, (rows,))
    labels[1::5] = IGNORED
    return torch.randn(rows, columns), 3 * torch.randn(rows, columns), labels


def by_kernel(student: torch.Tensor, *others: torch.Tensor | None, **named: float) -> tuple[DistillLoss, torch.Tensor]:
    with interpreted():
        leaf = student.detach().requires_grad_()
        found = distill_loss(leaf, *others, T, ALPHA, BETA, **named)
        found.loss.backward()
    assert leaf.grad is not None
    return found, leaf.grad


def plainly(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> DistillLoss:
    """What a training computes without kernels, in fp64, and by counting; and its gradient."""
    s, t, has = student.double(), teacher.double(), labels != IGNORED
    soft, hard = soft_targets(s, t, T), cross_entropy(s[has], labels[has], smoothing)
    tops = s.argmax(dim=1), t.argmax(dim=1)
    counts = [(top == labels).sum() for top in tops] + [(tops[0] == tops[1]).sum(), has.sum(), 0 * has.sum()]
    parts = torch.stack([soft.detach(), hard.detach(), *counts, counts[-1]])  # none is out of range, none is broken
    return DistillLoss(ALPHA * soft + BETA * hard, parts, s.shape[1], IGNORED)


def check(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> None:
    found, gradient = by_kernel(student, teacher, labels, label_smoothing=smoothing)
    exact = student.detach().double().requires_grad_()
    expected = plainly(exact, teacher, labels, smoothing)
    expected.loss.backward()
    assert gradient.dtype == student.dtype
    assert exact.grad is not None
    close(gradient, exact.grad)
    close(found.loss, expected.loss.detach(), len(student))
    close(found.parts[:2], expected.parts[:2], len(student))
    assert found.parts[2:].tolist() == expected.parts[2:].tolist()
    assert found.counted() == tuple(found.parts[:6].tolist())


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_it_is_what_training_computes_without_it(rows: int, columns: int) -> None:
    check(*drawn(rows, columns))


@pytest.mark.parametrize("columns", [10, 4097])
def test_label_smoothing(columns: int) -> None:
    check(*drawn(5, columns), smoothing=0.1)


@pytest.mark.parametrize("columns", [197, 4100])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [(torch.float16, torch.float16), (torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)],
)
def test_each_half_precision_and_mixed(student: torch.dtype, teacher: torch.dtype, columns: int) -> None:
    mine, theirs, labels = drawn(2, columns)
    check(mine.to(student), theirs.to(teacher), labels)


def test_small_gradients_of_fp16_outlive_the_loss_scale() -> None:
    """At p = 1e-9 fp16 has nothing left of a gradient that is made before the factor 65536 comes."""
    student = torch.tensor([[20.0, 0.0]], dtype=torch.float16, requires_grad=True)
    with interpreted():
        found = distill_loss(student, student.detach(), torch.tensor([0]), 1.0, 0.0, 1.0)
        (found.loss * 65536).backward()
    assert student.grad is not None
    close(student.grad[0, 1], 65536 * torch.tensor(-20.0, dtype=torch.float64).sigmoid())
    assert student.grad[0, 1] > 0


@pytest.mark.parametrize("columns", [130, 4100])
@pytest.mark.parametrize("layout", [strided, transposed, lambda make, *shape: make(1, shape[1]).expand(*shape)])
def test_any_layout(layout: Callable[..., torch.Tensor], columns: int) -> None:
    torch.manual_seed(1)
    check(layout(torch.randn, 4, columns), layout(torch.randn, 4, columns), torch.arange(8)[::2])


@pytest.mark.parametrize(("rows", "columns"), [(77, 10), (3, 4097)])
def test_more_tiles_than_programs(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_loss_kernels, "MOST_PROGRAMS", 2)
    check(*drawn(rows, columns))


@pytest.mark.parametrize("columns", [10, 4097])
def test_without_labels_there_is_no_hard_part(columns: int) -> None:
    student, teacher, _ = drawn(3, columns)
    found, gradient = by_kernel(student, teacher, None)
    nobody = torch.full((3,), IGNORED)
    ignored, same = by_kernel(student, teacher, nobody)
    assert torch.equal(gradient, same)
    assert torch.equal(found.parts, ignored.parts)
    assert found.labelled == found.hard == 0
    close(found.loss, ALPHA * soft_targets(student.double(), teacher.double(), T), 3)


def test_another_number_may_stand_for_no_label() -> None:
    student, teacher, labels = drawn(9, 10)
    found, gradient = by_kernel(student, teacher, labels)
    same, alike = by_kernel(student, teacher, torch.where(labels == IGNORED, -1, labels), ignored=-1)
    assert torch.equal(found.parts, same.parts)
    assert torch.equal(gradient, alike)


def test_an_empty_batch() -> None:
    found, gradient = by_kernel(torch.empty(0, 12), torch.empty(0, 12), torch.empty(0, dtype=torch.long))
    assert gradient.shape == (0, 12)
    assert found.loss == 0
    assert not found.parts.any()


@pytest.mark.parametrize("columns", [5, 4100])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("who", [0, 1])
def test_a_row_with_no_number_never_gives_one(who: int, value: float, columns: int) -> None:
    logits = drawn(4, columns)
    logits[who][2, 1] = value
    found, gradient = by_kernel(*logits)
    assert found.loss.isnan()
    assert gradient[2].isnan().any()
    assert gradient[[0, 1, 3]].isfinite().all()
    assert found.labelled == 3
    assert found.parts[2:].tolist() == reference(*logits, T).parts[2:].tolist()
    with pytest.raises(ValueError, match=r"1 rows of the logits of student or teacher have no probabilities: expected"):
        found.counted()


@pytest.mark.parametrize("columns", [5, 8200])
def test_classes_that_are_masked(columns: int) -> None:
    """Of probability 0 for both: they add nothing. A whole row of them has no probabilities at all."""
    student, teacher, labels = drawn(3, columns)
    labels = torch.tensor([columns - 1] * 3)
    kept = columns - 2
    masked = [logits.index_fill(1, torch.arange(kept), -INF) for logits in (student, teacher)]
    found, gradient = by_kernel(*masked, labels)
    alone, expected = by_kernel(student[:, kept:], teacher[:, kept:], torch.tensor([1] * 3))
    close(found.parts, alone.parts.double(), 3)
    close(gradient[:, kept:], expected.double())
    assert not gradient[:, :kept].any()
    masked[0][1] = -INF
    masked[1][2] = -INF
    found = by_kernel(*masked, labels)[0]
    assert found.loss.isnan()
    assert found.broken == 2
    assert found.parts[2:].tolist() == reference(*masked, labels, T).parts[2:].tolist()


@pytest.mark.parametrize("columns", [5, 8200])
def test_a_class_that_the_student_alone_rules_out_is_infinitely_far_as_in_torch(columns: int) -> None:
    student, teacher, _ = drawn(3, columns)
    student[1, 2] = -INF
    for label in (0, 2):  # another class, and this one
        labels = torch.tensor([0, label, IGNORED])
        found, gradient = by_kernel(student, teacher, labels)
        exact = student.double().requires_grad_()
        expected = plainly(exact, teacher, labels)
        expected.loss.backward()
        assert exact.grad is not None
        assert found.loss == expected.loss == INF
        close(gradient, exact.grad)
        assert found.counted()[2:] == tuple(expected.parts[2:6].tolist())


@pytest.mark.parametrize("label", [-1, 10, 2**40, -(2**40)])
def test_a_label_out_of_range_is_refused_or_never_a_number(label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, labels = drawn(3, 10)
    labels[2] = label
    for context in (interpreted, torch.no_grad):
        with pytest.raises(ValueError, match=rf"label {label} is out of range: expected 0 to 9, or -100"), context():
            distill_loss(student, teacher, labels, T)
    monkeypatch.setattr(module, "_check_range", lambda *_: None)  # as on a GPU, which is not waited for
    found, gradient = by_kernel(student, teacher, labels)
    assert found.loss.isnan()
    assert gradient[:2].isfinite().all()
    assert gradient[2].isnan().all()
    plain = reference(student, teacher, labels, T)
    assert plain.loss.isnan()
    for each in (found, plain):
        assert each.strange == 1
        with pytest.raises(ValueError, match=r"1 of 2 labels are out of range: expected 0 to 9, or -100"):
            each.counted()
    assert found.parts[2:].tolist() == plain.parts[2:].tolist()


def test_where_nobody_asks_no_gradient_is_made() -> None:
    student, teacher, labels = drawn(3, 10)
    with interpreted():
        assert not distill_loss(student, teacher, labels, T).loss.requires_grad
        with torch.no_grad():
            quiet = distill_loss(student.requires_grad_(), teacher, labels, T)
    assert not quiet.loss.requires_grad
    torch.testing.assert_close(quiet.loss, reference(student, teacher, labels, T).loss.detach())


@pytest.mark.parametrize("factor", [1.0, 0.0, -2.5])
def test_the_incoming_gradient_scales_it_as_often_as_is_asked(factor: float) -> None:
    student, teacher, labels = drawn(3, 10)
    _, once = by_kernel(student, teacher, labels)
    leaf = student.requires_grad_()
    with interpreted():
        loss = distill_loss(leaf, teacher, labels, T, ALPHA, BETA).loss * factor
        for _ in range(2):
            (again,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            torch.testing.assert_close(again, once * factor)
        (last,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(last, once * factor)


def test_only_the_loss_can_be_differentiated() -> None:
    student, teacher, labels = drawn(3, 10)
    with interpreted():
        found = distill_loss(student.requires_grad_(), teacher.requires_grad_(), labels, T)
        assert not found.parts.requires_grad
        found.loss.backward()
    assert teacher.grad is None


def test_opcheck_and_gradcheck() -> None:
    student, teacher, labels = drawn(3, 5)
    double = student.double().requires_grad_()
    torch.autograd.gradcheck(lambda s: distill_loss(s, teacher, labels, T, ALPHA, BETA, 0.1).loss, (double,))
    settings = (labels, T, ALPHA, BETA, 0.1, IGNORED, True)
    with interpreted():
        torch.library.opcheck(module._forward, (student.requires_grad_(), teacher, *settings))
        with torch.no_grad():
            torch.library.opcheck(module._forward, (student.half(), teacher, None, *settings[1:-1], False))


def test_compiled_whole_and_exported() -> None:
    student, teacher, labels = drawn(4, 40)
    compiled = torch.compile(
        lambda s: distill_loss(s, teacher, labels, T, ALPHA, BETA).loss * 2, fullgraph=True, backend="aot_eager"
    )
    with interpreted():
        leaf = student.clone().requires_grad_()
        loss = compiled(leaf)
        loss.backward()
    expected = student.clone().requires_grad_()
    (2 * reference(expected, teacher, labels, T, ALPHA, BETA).loss).backward()
    torch.testing.assert_close(leaf.grad, expected.grad)

    class Loss(torch.nn.Module):
        def forward(self, s: torch.Tensor) -> torch.Tensor:
            return distill_loss(s, teacher, labels, T).loss

    assert "limbeck.distill_loss" in str(torch.export.export(Loss(), (student,)).graph)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student": torch.zeros(3)}, r"student is \(3,\) and teacher \(2, 3\)"),
        ({"teacher": torch.zeros(2, 4)}, r"student is \(2, 3\) and teacher \(2, 4\)"),
        ({"student": torch.zeros(2, 0), "teacher": torch.zeros(2, 0)}, "with K > 0"),
        ({"student": torch.zeros(2, 3).int()}, r"student is torch.int32: expected one of torch.float16"),
        ({"teacher": torch.zeros(2, 3).bool()}, r"teacher is torch.bool: expected one of"),
        ({"labels": torch.zeros(2)}, r"labels are torch.float32 \(2,\): expected torch.int64 \(2,\)"),
        ({"labels": torch.zeros(3).long()}, r"labels are torch.int64 \(3,\): expected torch.int64 \(2,\)"),
        ({"teacher": torch.zeros(2, 3, device="meta")}, "on different devices"),
        ({"temperature": 0.0}, "temperature is 0.0: expected a number above 0"),
        ({"temperature": NAN}, "temperature is nan"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5: expected 0 to 1"),
        ({"ignored": 2}, "ignored is 2, a class of 3"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    fitting = {"student": torch.zeros(2, 3), "teacher": torch.zeros(2, 3), "labels": torch.zeros(2).long()}
    with pytest.raises(ValueError, match=said):
        distill_loss(**(fitting | {"temperature": T} | change))


ROW = "_rows_kernel"
PLANTED = {  # the kernel, what stands there, and what a slip would look like
    "T once": (ROW, "temperature * temperature * divergence", "temperature * divergence"),
    "no T in the gradient": (ROW, "g = alpha * temperature * ", "g = alpha * "),
    "columns past the end are logits": (ROW, 'other=float("-inf")', "other=0.0"),
    "rows past the end count": (ROW, "tl.where(real & (s_at == t_at)", "tl.where((s_at == t_at)"),
    "the wrong way round": (ROW, "q * apart", "-q * apart"),
    "ignored items count": ("_labels", "has = real & (label != ignored)", "has = real"),
    "labels that are classes are called strange": (ROW, "has & (known == 0)", "has & (known != 0)"),
    "sound rows are called broken": (ROW, "(s_sound & t_sound) == 0", "(s_sound & t_sound) != 0"),
}


@pytest.mark.parametrize("slip", PLANTED)
def test_a_slip_in_a_kernel_is_found(slip: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel, right, wrong = PLANTED[slip]
    plant(monkeypatch, tmp_path, distill_loss_kernels, kernel, right, wrong)
    with pytest.raises((AssertionError, ValueError)):
        check(*drawn(7, 10))


AHEAD = """
from kernels.ahead import complaints, compile_for
from kernels.distill_loss import builds
build = next(build for build in builds() if " rows bf16 K=1000 " in build.name)
found = compile_for(build, 90)
print(complaints(build, found), found.vector_loads > 0, found.spilled_bytes)
"""


def test_ahead_of_time_a_row_of_imagenet_is_loaded_in_vectors_and_nothing_spills() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", AHEAD], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[] True 0"]


def test_rows_beyond_2_to_the_31_elements() -> None:
    """Memory that is never touched costs nothing."""
    student, teacher, labels = drawn(2, 10)
    far = torch.empty(2**31 + 18, dtype=torch.float16).as_strided((2, 10), (2**31 + 8, 1)).copy_(student)
    check(far, teacher, labels)
