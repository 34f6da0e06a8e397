from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from train.distill.logits import soft_targets

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
