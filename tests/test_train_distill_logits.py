from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kernels.distill_loss import reference
from train.distill.decoupled import decoupled
from train.distill.logits import divergence, soft_targets

GENERATOR = np.random.default_rng(0)
STUDENT, TEACHER = (GENERATOR.normal(0, 3, (9, 5)) for _ in range(2))
LABELS = GENERATOR.integers(0, 5, 9)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor(STUDENT, requires_grad=True), torch.tensor(TEACHER), torch.tensor(LABELS)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_soft_targets_are_the_divergence_from_the_teacher_times_t_squared(temperature: float) -> None:
    student, teacher, _ = tensors()
    p, log_q = softmax(TEACHER / temperature, axis=1), log_softmax(STUDENT / temperature, axis=1)
    expected = temperature**2 * (p * (np.log(p) - log_q)).sum()
    assert soft_targets(student, teacher, temperature).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_gradient_is_t_times_the_difference_of_the_softened_answers(temperature: float) -> None:
    student, teacher, _ = tensors()
    soft_targets(student, teacher, temperature).backward()
    expected = temperature * (softmax(STUDENT / temperature, axis=1) - softmax(TEACHER / temperature, axis=1))
    assert student.grad is not None
    assert student.grad.numpy() == pytest.approx(expected)


def test_the_size_of_the_gradient_does_not_fade_as_t_grows() -> None:
    sizes = []
    for temperature in (10.0, 100.0, 1000.0):
        student, teacher, _ = tensors()
        soft_targets(student, teacher, temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    # At high T it tends to the difference of the centred logits over K (Hinton et al., section 2.1).
    limit = (STUDENT - STUDENT.mean(1, keepdims=True) - TEACHER + TEACHER.mean(1, keepdims=True)) / 5
    assert sizes[2] == pytest.approx(np.linalg.norm(limit), rel=0.01)
    assert sizes[0] == pytest.approx(sizes[2], rel=0.3)


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn() -> None:
    _, teacher, _ = tensors()
    student = (teacher.clone() + 7.0).requires_grad_()  # a shift of all logits changes no answer
    loss = soft_targets(student, teacher, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-9


def ruled_out() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of student and teacher; the teacher rules out class 1 of item 0, both rule out class 2 of item 3."""
    student, teacher, _ = tensors()
    student = student.detach().clone()
    student[3, 2] = -torch.inf
    teacher[0, 1] = teacher[3, 2] = -torch.inf
    return student.requires_grad_(), teacher


def test_a_class_that_the_teacher_rules_out_adds_nothing() -> None:
    """The limit of q log q / p as q falls to 0, also where p is 0 as well; as in the kernel and its reference."""
    student, teacher = ruled_out()
    loss = soft_targets(student, teacher, 4.0)
    loss.backward()
    p, q = softmax(student.detach().numpy() / 4, axis=1), softmax(teacher.numpy() / 4, axis=1)
    there = q > 0
    assert loss.item() == pytest.approx(16 * (q[there] * np.log(q[there] / p[there])).sum())
    assert loss.item() == pytest.approx(reference(student, teacher, None, 4.0).loss.item())
    assert student.grad is not None
    assert student.grad.numpy() == pytest.approx(4 * (p - q))


def test_what_is_no_number_is_not_taken_for_ruled_out() -> None:
    for broken, value in ((0, torch.nan), (1, torch.nan), (1, torch.inf)):
        logits = list(tensors()[:2])
        logits[broken] = logits[broken].detach().clone()
        logits[broken][4, 1] = value
        assert soft_targets(logits[0], logits[1], 4.0).isnan()
    student, teacher, _ = tensors()
    teacher[2] = -torch.inf  # of nothing that can be there are no probabilities
    assert soft_targets(student, teacher, 4.0).isnan()
    ruling = student.detach().clone()
    ruling[0, 0] = -torch.inf  # what the student alone rules out
    assert soft_targets(ruling, tensors()[1], 4.0) == torch.inf


def test_classes_that_the_teacher_rules_out_add_nothing_to_the_decoupled_loss_either() -> None:
    student, teacher = ruled_out()
    labels = torch.tensor(LABELS)
    labels[0], labels[3] = 1, 0  # the label itself, and another class
    loss = decoupled(student, teacher, labels, 4.0, 1.0, 1.0)
    loss.backward()
    nearly = teacher.clone()
    nearly[0, 1] = -400.0  # far enough that its probability is 0
    near, so = student.detach().clone(), nearly.clone()
    near[3, 2] = so[3, 2] = -400.0
    assert loss.item() == pytest.approx(decoupled(near, so, labels, 4.0, 1.0, 1.0).item())
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_both_ways_to_the_divergence_agree() -> None:
    """The one without a branch is what a GPU takes; here it is taken where torch's gives NaN: of one row more."""
    student, teacher = (torch.log_softmax(logits, dim=1) for logits in tensors()[:2])
    certain = torch.full((1, 5), -torch.inf, dtype=torch.float64)
    certain[0, 0] = 0.0
    alone = divergence(student, teacher)
    beside = divergence(torch.cat([student, certain]), torch.cat([teacher, certain]))
    assert torch.nn.functional.kl_div(certain, certain, log_target=True, reduction="sum").isnan()
    assert beside.item() == pytest.approx(alone.item())
