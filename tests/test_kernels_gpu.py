"""The GPU lane: TRITON_INTERPRET=0 pytest -m gpu tests/test_kernels_gpu.py. Bounded by `limbeck kernels gpu`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import kernels_gpu_checks as check
import pytest
import torch
from fused_networks import bert

from kernels import bias_gelu, distill_loss, normalise, residual_layernorm, runtime
from kernels.bench.case import Case
from kernels.bench.catalog import cases
from kernels.fuse import FuseOptions, fuse
from train.distill import DistillConfig
from train.distill.answers import answers_and_labels
from train.distill.encoders import hidden_states
from train.fit_config import FitConfig
from train.fused import rehearsing
from train.losses import LabelLoss

# `limbeck kernels gpu` has found a GPU: then these tests fail rather than be left out
HERE = os.environ.get("LIMBECK_GPU") == "1" or (torch.cuda.is_available() and not runtime.interprets())
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HERE, reason="needs an NVIDIA GPU, and TRITON_INTERPRET=0"),
]
GPU = torch.device("cuda", 0)
CASES = {case.title: case for case in cases()}
FIRST = list({(case.kernel, case.mode): title for title, case in reversed(CASES.items())}.values())
ODD_ROWS = 4099  # no multiple of any tile
FAR_ELEMENTS = 2**31


@pytest.fixture(autouse=True)
def alive() -> Iterator[None]:
    """What a kernel did wrong shows at the latest here, in the test that did it."""
    yield
    torch.cuda.synchronize()


def test_the_kernels_are_what_runs_here() -> None:
    assert runtime.why_not(GPU) is None


@pytest.mark.parametrize("title", CASES)
def test_parity_for_an_odd_number_of_rows(title: str) -> None:
    check.parity(CASES[title], CASES[title].dtype, ODD_ROWS, GPU)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("title", [title for title in FIRST if not CASES[title].fixed])
def test_parity_in_other_dtypes(title: str, dtype: torch.dtype) -> None:
    check.parity(CASES[title], dtype, ODD_ROWS, GPU)


@pytest.mark.parametrize("title", CASES)
def test_parity_at_the_size_that_is_measured(title: str) -> None:
    case = CASES[title]
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("the fp64 reference needs 60 GB")
    check.parity(case, case.dtype, case.rows, GPU)


@pytest.mark.parametrize("title", FIRST)
def test_rows_beyond_2_31_elements(title: str) -> None:
    case = CASES[title]
    rows = FAR_ELEMENTS // _row(case) + 2 * check.LAST
    if torch.cuda.mem_get_info()[0] < 24 * FAR_ELEMENTS:  # inputs made in fp32, inputs, outputs and what autograd keeps
        pytest.skip("needs 52 GB")
    check.far_rows(case, rows, GPU)


@pytest.mark.parametrize("title", FIRST)
def test_one_graph_with_inductor(title: str) -> None:
    check.same_compiled(CASES[title], ODD_ROWS, GPU)


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("title", [title for title, case in CASES.items() if not case.waits])
def test_the_host_never_waits(title: str) -> None:
    check.quiet(CASES[title], ODD_ROWS, GPU, no_waiting)


def test_the_guard_sees_a_wait() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting():
        torch.ones(1, device=GPU).item()


@pytest.mark.parametrize("title", [title for title, case in CASES.items() if case.mode == "forward" and not case.waits])
def test_a_captured_graph_replays_it(title: str) -> None:
    case = CASES[title]
    inputs = case.make(ODD_ROWS, GPU)
    with torch.no_grad():
        expected = case.ours(*inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = case.ours(*inputs)
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_opcheck() -> None:
    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=GPU, requires_grad=True)

    labels = torch.tensor([1, -100, 4], device=GPU)
    settings = 2.0, 0.5, 0.5, 0.1, -100, True
    torch.library.opcheck(distill_loss._forward, (leaf(3, 5), torch.randn(3, 5, device=GPU), labels, *settings))
    layer = leaf(3, 40), leaf(3, 40), leaf(40), leaf(40)
    torch.library.opcheck(residual_layernorm._forward, (*layer, 1e-5, 0.0, None))
    y = bias_gelu.bias_gelu(leaf(3, 40), leaf(40))
    y.sum().backward()  # a gradient of stride 0


def test_a_label_out_of_range_reads_nothing_and_makes_the_loss_nan() -> None:
    logits = torch.randn(5, 10, device=GPU, requires_grad=True)
    labels = torch.tensor([0, 1, 2**40, -7, 9], device=GPU)
    found = distill_loss.distill_loss(logits, logits.detach(), labels, 2.0)
    found.loss.backward()
    assert found.loss.isnan()
    assert logits.grad is not None
    assert logits.grad.isnan().any(dim=1).tolist() == [False, False, True, True, False]
    with pytest.raises(ValueError, match="2 of 5 labels are out of range: expected 0 to 9"):
        found.counted()


def test_dropout_is_the_same_here_and_on_a_cpu() -> None:
    x, weight, bias = torch.randn(33, 768), torch.rand(768), torch.rand(768)
    seed, layer = torch.tensor([1234]), residual_layernorm.residual_layernorm
    here, there = (
        layer(*(each.to(device) for each in (x, x, weight, bias)), 1e-5, 0.3, seed.to(device))
        for device in (GPU, torch.device("cpu"))
    )  # fmt: skip
    torch.testing.assert_close(here.cpu(), there, rtol=1e-4, atol=1e-4)


def test_every_site_of_a_bert_is_right_also_as_it_is_trained() -> None:
    network, batch = bert(hidden_size=384, num_attention_heads=12, intermediate_size=1536, hidden_dropout_prob=0.1)
    here = {name: value.to(GPU) for name, value in batch.items()}
    ledger = fuse(network.to(GPU), here, FuseOptions(torch.bfloat16, force=True))
    assert all(entry.kept for entry in ledger.entries), [entry.why for entry in ledger.entries]
    assert len(ledger.entries) == 4


def test_the_losses_of_a_student_are_compared_and_timed() -> None:
    logits, answers = torch.randn(128, 10, device=GPU), torch.randn(128, 10, device=GPU)
    states, theirs = torch.randn(32, 64, 384, device=GPU), torch.randn(32, 64, 384, device=GPU)
    mask = torch.arange(64, device=GPU) < torch.randint(8, 65, (32, 1), device=GPU)
    labels = torch.arange(128, device=GPU) % 10
    on_labels = LabelLoss(FitConfig(), tuple("abcdefghij"), labels.cpu().numpy())
    with rehearsing(FuseOptions()) as rehearsal:
        answers_and_labels(logits, answers, labels, DistillConfig(temperature=2.0, alpha=0.5), on_labels)
        hidden_states(states, theirs, mask)
    assert [entry.kernel for entry in rehearsal.entries] == ["distill_loss", "hidden_loss"]
    for entry in rehearsal.entries:
        assert entry.error is not None
        assert entry.error < 1e-5
        assert entry.fused_ms is not None, entry.why
        assert entry.compiled_ms is not None, entry.why


def test_more_images_than_the_second_axis_of_a_grid_takes() -> None:
    images = torch.randint(0, 256, (70_000, 4, 4, 3), dtype=torch.uint8, device=GPU)
    scale, shift = torch.rand(3, device=GPU), torch.rand(3, device=GPU)
    found = normalise.normalise(images, scale, shift)
    torch.testing.assert_close(found, normalise.reference(images, scale, shift))


def test_any_layout() -> None:
    whole = torch.randn(64, 2 * 100, device=GPU)
    bias = torch.randn(100, device=GPU)
    for x in (whole[:, :100], whole[:, 1:101], whole[:, ::2], torch.randn(100, 64, device=GPU).t()):
        exact = torch.nn.functional.gelu(x.double() + bias.double())
        torch.testing.assert_close(bias_gelu.bias_gelu(x, bias).double(), exact, rtol=1e-5, atol=1e-5)


def _row(case: Case) -> int:
    """How many elements a row has."""
    return int(case.make(1, torch.device("cpu"))[0].numel())
