from __future__ import annotations

import torch
from kernel_cases import interpreter

from kernels.runtime import interpreted
from train.fused import fused, kernels_allowed


@interpreter
def test_kernels_are_on_within_a_training_that_allows_them_on_a_device_that_runs_them() -> None:
    tensor = torch.zeros(2)
    with interpreted():
        assert not fused(tensor)
        with kernels_allowed("auto"):
            assert fused(tensor)
            with kernels_allowed("off"):
                assert not fused(tensor)
            assert fused(tensor)
        assert not fused(tensor)
    with kernels_allowed("auto"):
        assert not fused(tensor)  # a CPU
