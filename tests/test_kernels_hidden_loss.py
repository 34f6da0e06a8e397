from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kernel_cases import COLUMNS, close, interpreter, strided, transposed
from planted_bugs import plant

from kernels import hidden_loss as module
from kernels import hidden_loss_kernels
from kernels.hidden_loss import HiddenLoss, hidden_loss, reference
from kernels.runtime import interpreted
from train.distill.encoders import hidden_states

pytestmark = interpreter
MSE, COSINE = 1.5, 0.4
NAN, INF = float("nan"), float("inf")
States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(items: int, tokens: int, width: int) -> States:
    """Hidden states of student and teacher, and a mask: the first item is full, others are cut."""
    torch.manual_seed(items * tokens * width)
    shape = (items, tokens, width)
    lengths = torch.randint(1, tokens + 1, (items, 1))
    lengths[0] = tokens
    return torch.randn(*shape), 2 * torch.randn(*shape), torch.arange(tokens) < lengths


def by_kernel(student: torch.Tensor, *others: torch.Tensor | None, cosine: float) -> tuple[HiddenLoss, torch.Tensor]:
    with interpreted():
        leaf = student.detach().requires_grad_()
        found = hidden_loss(leaf, *others, MSE, cosine)
        found.loss.backward()
    assert leaf.grad is not None
    return found, leaf.grad


def check(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, cosine: float = COSINE) -> None:
    """Against what a training computes without kernels, in fp64, and DistilBERT's loss item by item."""
    found, gradient = by_kernel(student, teacher, mask, cosine=cosine)
    s, t = student.detach().double().requires_grad_(), teacher.double()
    mse = hidden_states(s, t, mask)
    angles = torch.zeros((), dtype=torch.float64)
    for mine, its, kept in zip(s, t, mask, strict=True):
        if kept.any() and cosine:
            target = torch.ones(int(kept.sum()))
            angles = angles + torch.nn.functional.cosine_embedding_loss(mine[kept], its[kept], target)
    loss = MSE * mse + cosine * angles
    loss.backward()
    assert s.grad is not None
    assert gradient.dtype == student.dtype
    close(gradient, s.grad)
    close(found.loss, loss.detach(), len(student))
    close(found.parts, torch.stack([mse, angles]).detach(), len(student))


SHAPES = [(*shape, width) for shape in ((1, 1), (1, 3), (3, 33)) for width in COLUMNS]


@pytest.mark.parametrize(("items", "tokens", "width"), SHAPES)
def test_it_is_what_training_computes_without_it(items: int, tokens: int, width: int) -> None:
    check(*drawn(items, tokens, width), cosine=0.0 if items > 1 else COSINE)


@pytest.mark.parametrize("width", [1, 10, 197])
def test_angles_besides(width: int) -> None:
    check(*drawn(3, 40, width))


def test_long_texts_are_counted_in_steps() -> None:
    check(*drawn(2, 300, 4))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(torch.float16, torch.float16), (torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)],
)
def test_each_half_precision_and_mixed(student: torch.dtype, teacher: torch.dtype) -> None:
    mine, theirs, mask = drawn(3, 9, 130)
    check(mine.to(student), theirs.to(teacher), mask)


@pytest.mark.parametrize(
    "layout",
    [
        strided,
        lambda make, items, tokens, width: make(items, tokens, 3 * width).chunk(3, dim=2)[1],  # as of queries
        lambda make, items, tokens, width: transposed(make, items * tokens, width).unflatten(0, (items, tokens)),
        lambda make, items, tokens, width: make(tokens, items, width).transpose(0, 1),
        lambda make, items, tokens, width: make(items, 1, width).expand(items, tokens, width),
    ],
)
def test_any_layout(layout: Callable[..., torch.Tensor]) -> None:
    _, _, mask = drawn(3, 7, 24)
    check(layout(torch.randn, 3, 7, 24), layout(torch.randn, 3, 7, 24), mask)
    check(layout(torch.randn, 3, 7, 24), layout(torch.randn, 3, 7, 24), mask[:, :1].expand(3, 7))


def test_without_a_mask_all_tokens_count() -> None:
    student, teacher, mask = drawn(3, 7, 24)
    found, gradient = by_kernel(student, teacher, None, cosine=COSINE)
    same, alike = by_kernel(student, teacher, torch.ones_like(mask), cosine=COSINE)
    torch.testing.assert_close(found.parts, same.parts)
    torch.testing.assert_close(gradient, alike)


def test_items_without_tokens_add_nothing() -> None:
    student, teacher, mask = drawn(3, 7, 24)
    mask[1] = False
    check(student, teacher, mask)
    found, gradient = by_kernel(student, teacher, torch.zeros_like(mask), cosine=COSINE)
    assert found.loss == 0
    assert not found.parts.any()
    assert not gradient.any()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("who", [0, 1])
def test_padding_is_never_read_and_what_is_no_number_in_a_token_never_gives_one(who: int, value: float) -> None:
    states = drawn(3, 7, 24)
    states[2][1, 4:] = False
    clean, expected = by_kernel(*states, cosine=COSINE)
    states[who][1, 5, 3] = value
    found, gradient = by_kernel(*states, cosine=COSINE)
    assert torch.equal(found.parts, clean.parts)
    assert torch.equal(gradient, expected)
    torch.testing.assert_close(reference(*states, MSE, COSINE).loss, found.loss)
    states[who][1, 0, 3] = value
    found, gradient = by_kernel(*states, cosine=COSINE)
    assert not found.loss.isfinite()
    assert not gradient[1, 0].isfinite().all()
    assert torch.equal(gradient[2], expected[2])
    states[who][1] = value  # the tokens of a text, all of them
    plain = reference(*states, MSE, COSINE)
    found, gradient = by_kernel(*states, cosine=COSINE)
    torch.testing.assert_close(found.parts, plain.parts, equal_nan=True)
    assert not gradient[1, :4].isfinite().any()
    assert not gradient[1, 4:].any()
    assert torch.equal(gradient[2], expected[2])


def test_vectors_of_zeros_have_a_gradient() -> None:
    student, teacher, mask = drawn(2, 3, 8)
    student[0, 0] = 0
    teacher[1, 0] = 0
    found, gradient = by_kernel(student, teacher, mask, cosine=COSINE)
    torch.testing.assert_close(found.loss, reference(student, teacher, mask, MSE, COSINE).loss)
    torch.testing.assert_close(gradient, module._reference_gradient(student, teacher, mask, MSE, COSINE))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 8), (2, 0, 8)])
def test_an_empty_batch(shape: tuple[int, int, int]) -> None:
    found, gradient = by_kernel(torch.empty(shape), torch.empty(shape), torch.ones(shape[:2]).bool(), cosine=COSINE)
    assert gradient.shape == shape
    assert found.loss == 0
    assert not found.parts.any()


def test_tokens_that_are_too_wide_go_through_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDEST", 8)
    monkeypatch.setattr(module, "launch", None)
    check(*drawn(2, 3, 9))


@pytest.mark.parametrize("factor", [1.0, 0.0, -2.5])
def test_the_incoming_gradient_scales_it_as_often_as_is_asked(factor: float) -> None:
    student, teacher, mask = drawn(2, 3, 8)
    _, once = by_kernel(student, teacher, mask, cosine=COSINE)
    leaf = student.requires_grad_()
    with interpreted():
        loss = hidden_loss(leaf, teacher, mask, MSE, COSINE).loss * factor
        for _ in range(2):
            (again,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            torch.testing.assert_close(again, once * factor)
        (last,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(last, once * factor)


def test_opcheck_and_gradcheck() -> None:
    student, teacher, mask = drawn(2, 3, 5)
    double = student.double().requires_grad_()
    torch.autograd.gradcheck(lambda s: hidden_loss(s, teacher, mask, MSE, COSINE).loss, (double,))
    with interpreted():
        torch.library.opcheck(module._forward, (student.requires_grad_(), teacher, mask, MSE, COSINE, True))


def test_compiled_whole_and_exported() -> None:
    student, teacher, mask = drawn(2, 3, 8)
    compiled = torch.compile(
        lambda s: hidden_loss(s, teacher, mask, MSE, COSINE).loss * 2, fullgraph=True, backend="aot_eager"
    )
    with interpreted():
        leaf = student.clone().requires_grad_()
        compiled(leaf).backward()
    expected = student.clone().requires_grad_()
    (2 * reference(expected, teacher, mask, MSE, COSINE).loss).backward()
    torch.testing.assert_close(leaf.grad, expected.grad)

    class Loss(torch.nn.Module):
        def forward(self, s: torch.Tensor) -> torch.Tensor:
            return hidden_loss(s, teacher, mask).loss

    assert "limbeck.hidden_loss" in str(torch.export.export(Loss(), (student,)).graph)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student": torch.zeros(2, 3)}, r"student is \(2, 3\) and teacher \(2, 3, 4\)"),
        ({"teacher": torch.zeros(2, 3, 5)}, r"student is \(2, 3, 4\) and teacher \(2, 3, 5\)"),
        ({"student": torch.zeros(2, 3, 0), "teacher": torch.zeros(2, 3, 0)}, "with H > 0"),
        ({"student": torch.zeros(2, 3, 4).long()}, "student is torch.int64: expected one of torch.float16"),
        ({"teacher": torch.zeros(2, 3, 4).bool()}, "teacher is torch.bool: expected one of"),
        ({"mask": torch.ones(2, 3)}, r"mask is torch.float32 \(2, 3\): expected torch.bool \(2, 3\)"),
        ({"mask": torch.ones(2, 4).bool()}, r"mask is torch.bool \(2, 4\): expected torch.bool \(2, 3\)"),
        ({"mask": torch.ones(2, 3, device="meta").bool()}, "on different devices"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    fitting = {"student": torch.zeros(2, 3, 4), "teacher": torch.zeros(2, 3, 4), "mask": torch.ones(2, 3).bool()}
    with pytest.raises(ValueError, match=said):
        hidden_loss(**(fitting | change))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("inside = kept[:, None] &", "inside = real[:, None] &"),  # padding is compared
        ("tl.where(kept, 1.0 - angle, 0.0)", "1.0 - angle"),  # padding has angles
        ("share = 1.0 / counted", "share = 1.0 / tokens"),  # divided by the padded length
        ("tl.sum(mse, axis=0) / (H * counted)", "tl.sum(mse, axis=0) / (H * tokens)"),
        ("(2.0 * mse_weight / H)", "(mse_weight / H)"),
        ("angle / (s_norm * s_norm)", "angle / (s_norm * t_norm)"),
    ],
)
def test_a_slip_in_the_kernel_is_found(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(monkeypatch, tmp_path, hidden_loss_kernels, "_tokens_kernel", right, wrong)
    states = drawn(3, 7, 8)
    states[2][1, 3:] = False
    with pytest.raises(AssertionError):
        check(*states)


AHEAD = """
from kernels.ahead import complaints, compile_for
from kernels.hidden_loss import builds
for build in builds():
    if " bf16 H=384 " in build.name:
        found = compile_for(build, 90)
        print(complaints(build, found), found.vector_loads > 0, found.spilled_bytes)
"""


def test_ahead_of_time_a_token_is_loaded_in_vectors_and_nothing_spills() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", AHEAD], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[] True 0"]


def test_tokens_beyond_2_to_the_31_elements() -> None:
    """Memory that is never touched costs nothing."""
    student, teacher, mask = drawn(1, 2, 8)
    far = torch.empty(2**31 + 16, dtype=torch.float16).as_strided((1, 2, 8), (2**32, 2**31 + 8, 1)).copy_(student)
    check(far, teacher, mask)
