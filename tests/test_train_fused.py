from __future__ import annotations

import torch
from kernel_cases import interpreter

from kernels.fuse import FuseOptions
from kernels.runtime import interpreted
from train.fused import either, losses_by_kernel, rehearsing

STUDENT, TEACHER = torch.ones(2), torch.zeros(2)


def way(number: float) -> torch.Tensor:
    """The loss of that name, with a kernel that gives `number` more."""
    return either(
        "one", "hidden_loss", lambda s, t: (s - t).sum(), lambda s, t: (s - t).sum() + number, STUDENT, TEACHER
    )


@interpreter
def test_a_loss_goes_by_its_kernel_where_it_was_chosen_and_a_device_runs_it() -> None:
    with interpreted():
        assert way(1.0) == 2
        with losses_by_kernel(["one", "another"]):
            assert way(1.0) == 3
            with losses_by_kernel(["another"]):
                assert way(1.0) == 2
            assert way(1.0) == 3
        assert way(1.0) == 2
    with losses_by_kernel(["one"]):
        assert way(1.0) == 2  # a CPU


@interpreter
def test_in_a_rehearsal_it_is_judged_when_it_is_first_called_and_computed_plainly() -> None:
    with interpreted(), losses_by_kernel(["one"]):
        with rehearsing(FuseOptions(force=True)) as rehearsal:
            assert way(1.0) == way(0.0) == 2
        with rehearsing(FuseOptions(force=True)) as another:
            assert way(0.0) == 2
        assert way(1.0) == 3
    assert [(entry.site, entry.kept) for entry in rehearsal.entries] == [("one", False)]
    assert [(entry.site, entry.kept) for entry in another.entries] == [("one", True)]
