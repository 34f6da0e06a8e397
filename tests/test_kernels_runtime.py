from __future__ import annotations

import pytest
import torch

from kernels import runtime
from kernels.bias_gelu import bias_gelu


def test_a_kernel_is_not_launched_on_another_gpu_than_its_tensors_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "interprets", lambda: False)
    monkeypatch.setattr(runtime, "_unfit", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert runtime.why_not(torch.device("cuda:1")) is None
    assert runtime.why_not(torch.device("cuda")) is None
    assert str(runtime.why_not(torch.device("cuda:0"))).startswith(
        "the tensors are on cuda:0 and the current device is"
    )


def test_a_processor_takes_the_references_unless_it_interprets() -> None:
    assert runtime.why_not(torch.device("cpu")) == "the tensors are on cpu: Triton needs an NVIDIA GPU"
    if not runtime.interprets():
        pytest.skip("Triton's interpreter is off")
    with runtime.interpreted():
        assert runtime.why_not(torch.device("cpu")) is None


def test_that_plain_operators_run_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    runtime._say_once.cache_clear()
    with caplog.at_level("INFO", logger="limbeck.kernels"):
        for _ in range(3):
            bias_gelu(torch.randn(2, 3), torch.randn(3))
    reason = "the tensors are on cpu: Triton needs an NVIDIA GPU"
    assert caplog.messages == [f"fused kernels are off: {reason}; the plain PyTorch operators run"]
