"""The checks of the GPU lane, run tiny in the interpreter: so that they are right when they first meet a GPU."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import kernels_gpu_checks as check
import pytest
import torch
from kernel_cases import interpreter

from kernels.bench.case import Case
from kernels.bench.catalog import cases
from kernels.runtime import interpreted

pytestmark = interpreter
CPU = torch.device("cpu")
CASES = {case.title: case for case in cases()}
# the first of each kernel, forward and backward
FIRST = list({(case.kernel, case.mode): title for title, case in reversed(CASES.items())}.values())
BACKWARD = "bias_gelu backward bf16 C=1536"


@pytest.mark.parametrize("title", FIRST)
def test_each_check_holds_for_each_kernel(title: str) -> None:
    case = CASES[title]
    with interpreted():
        check.parity(case, case.dtype if case.fixed else torch.float32, 3, CPU)
        check.far_rows(case, 5, CPU)
        check.quiet(case, 3, CPU, contextlib.nullcontext)


@pytest.mark.parametrize("title", FIRST)
def test_a_graph_without_a_break(title: str) -> None:
    check.same_compiled(CASES[title], 3, CPU, backend="aot_eager")


def wrong(case: Case, spoil) -> Case:
    return replace(case, ours=lambda *inputs: spoil(case.ours(*inputs)))


def test_a_wrong_number_or_an_element_that_is_not_written_is_seen() -> None:
    case = CASES["bias_gelu forward bf16 C=1536"]
    for spoil in (lambda y: y + 0.1, lambda y: y.index_fill(0, torch.tensor([2]), float("nan"))):
        with pytest.raises(AssertionError, match="times the tolerance"):
            check.parity(wrong(case, spoil), torch.float32, 3, CPU)


def test_rows_that_depend_on_how_many_there_are_are_seen() -> None:
    case = CASES["bias_gelu forward bf16 C=1536"]
    with pytest.raises(AssertionError):
        check.far_rows(wrong(case, lambda y: y + len(y)), 5, CPU)


def test_a_wait_is_seen() -> None:
    class Guard:
        def __enter__(self) -> None:
            raise RuntimeError("synchronizing")

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(RuntimeError, match="synchronizing"):
        check.quiet(CASES[BACKWARD], 3, CPU, Guard)
