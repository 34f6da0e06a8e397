"""fuse and unfuse: what is right and faster is kept, the rest stays the very network that it was."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from fused_networks import (
    bert,
    distilbert,
    no_bias_gradient,
    no_gradient_of_the_residual,
    no_number,
    no_residual,
    out_of_resources,
    resnet,
    timer,
    torchvision_vit,
    vit,
)
from kernel_cases import interpreter
from torch import nn

from kernels import fused_layers
from kernels.fuse import FuseOptions, fuse, fuse_as, unfuse
from kernels.ledger import Ledger
from kernels.parity import difference
from kernels.runtime import interpreted
from kernels.sites import BERTS

pytestmark = interpreter
FORCED = FuseOptions(force=True)


def fused(network: nn.Module, batch: Any, options: FuseOptions = FORCED) -> Ledger:
    with interpreted():
        return fuse(network, batch, options)


def passed(network: nn.Module, batch: Any) -> list[torch.Tensor]:
    """Logits and the gradients of all parameters."""
    with interpreted():
        found = network(**batch) if isinstance(batch, dict) else network(*batch)
    logits = getattr(found, "logits", found)
    with interpreted():
        gradients = torch.autograd.grad(logits.sigmoid().square().sum(), list(network.parameters()), allow_unused=True)
    return [logits, *(torch.zeros(1) if gradient is None else gradient for gradient in gradients)]


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (bert, ["residual_layernorm", "residual_layernorm", "bias_gelu", "residual_layernorm"]),
        (lambda: bert("roberta"), ["residual_layernorm", "bias_gelu", "residual_layernorm"]),
        (distilbert, ["residual_layernorm", "bias_gelu"]),
        (vit, ["residual_layernorm", "bias_gelu"]),
        (torchvision_vit, ["residual_layernorm", "bias_gelu"]),
    ],
)
def test_a_fused_network_gives_the_same_logits_and_gradients_and_is_itself_again_afterwards(make, kernels) -> None:
    network, batch = make()
    network.eval()
    expected = passed(network, batch)
    state, modules = network.state_dict(), dict(network.named_modules())
    classes = {name: type(module) for name, module in modules.items()}
    parameters = dict(network.named_parameters())
    ledger = fused(network, batch)
    assert [entry.kernel for entry in ledger.entries] == kernels
    assert all(entry.kept and entry.error is not None and entry.error < 1e-5 for entry in ledger.entries)
    assert ledger.error is not None
    assert ledger.error < 1e-5
    assert sum(type(module) is not classes[name] for name, module in network.named_modules()) == len(kernels)
    assert difference(passed(network, batch), expected) < 1e-5
    assert list(network.state_dict()) == list(state)
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert unfuse(network) is network
    assert {name: type(module) for name, module in network.named_modules()} == classes
    assert all(module is modules[name] for name, module in network.named_modules())
    assert all(torch.equal(one, other) for one, other in zip(passed(network, batch), expected, strict=True))


def test_a_cnn_has_no_site_and_the_ledger_says_so() -> None:
    ledger = fused(*resnet())
    assert ledger.entries == ()
    assert ledger.line() == "fused kernels: no part of this network has one"


def test_without_a_gpu_nothing_is_tried_and_each_site_says_why() -> None:
    network, batch = bert()
    ledger = fuse(network, batch)
    assert len(ledger.entries) == 4
    assert {entry.why for entry in ledger.entries} == {"the tensors are on cpu: Triton needs an NVIDIA GPU"}
    assert ledger.device == "cpu"
    assert ledger.line() == "fused kernels: none of 4 sites: the tensors are on cpu: Triton needs an NVIDIA GPU"


def test_what_is_right_but_not_measured_is_not_kept() -> None:
    network, batch = bert()
    ledger = fused(network, batch, FuseOptions())
    assert {entry.why for entry in ledger.entries} == {"it is right, but nothing is measured on this device"}
    assert all(entry.error is not None and not entry.kept for entry in ledger.entries)


@pytest.mark.parametrize(
    ("times_ms", "kept", "why"),
    [
        ((3.0, 2.0, 1.0), True, "3.00 times as fast as eager, 2.00 times as torch.compile"),
        ((3.0, 0.9, 1.0), False, "not faster: 3.00 times as fast as eager, 0.90 times as torch.compile"),
        ((1.01, 2.0, 1.0), False, "not faster: 1.01 times as fast as eager, 2.00 times as torch.compile"),
    ],
)
def test_winners_are_kept_by_their_times(times_ms: tuple[float, ...], kept: bool, why: str) -> None:
    network, batch = bert()
    ledger = fused(network, batch, FuseOptions(timer=timer(*times_ms)))
    assert [(entry.kept, entry.why) for entry in ledger.entries] == [(kept, why)] * 4
    entry = ledger.entries[0]
    assert (entry.eager_ms, entry.compiled_ms, entry.fused_ms) == times_ms
    assert entry.speed_up == pytest.approx(min(times_ms[:2]))
    assert Ledger.from_json(ledger.to_json()) == ledger
    if kept:
        expected = "4 of 4 sites (bias_gelu 1, residual_layernorm 3), 2.00 to 2.00 times as fast there"
        assert ledger.line() == f"fused kernels: {expected}"


def test_like_sites_are_measured_once() -> None:
    asked = []

    def count(run: Any) -> float:
        asked.append(run)
        return 1.0

    network, batch = bert(layers=3)
    fused(network, batch, FuseOptions(timer=count))
    assert len(asked) == 3 * 4  # embeddings, and of each layer: after the attention, GELU, after that


@pytest.mark.parametrize(
    ("name", "bug", "off"),
    [
        ("bias_gelu", no_bias_gradient, {"bert.encoder.layer.0.intermediate"}),
        ("bias_gelu", no_number, {"bert.encoder.layer.0.intermediate"}),
        ("bias_gelu", out_of_resources, {"bert.encoder.layer.0.intermediate"}),
        (
            "residual_layernorm",
            no_residual,
            {"bert.embeddings", "bert.encoder.layer.0.attention.output", "bert.encoder.layer.0.output"},
        ),
        (
            "residual_layernorm",
            no_gradient_of_the_residual,
            {"bert.embeddings", "bert.encoder.layer.0.attention.output", "bert.encoder.layer.0.output"},
        ),
    ],
)
def test_a_kernel_that_is_wrong_is_not_kept(monkeypatch, name: str, bug: Any, off: set[str]) -> None:
    network, batch = bert()
    monkeypatch.setattr(fused_layers, name, bug)
    ledger = fused(network, batch, FuseOptions(timer=timer(3.0, 2.0, 1.0)))
    assert {entry.site for entry in ledger.entries if not entry.kept} == off
    for entry in ledger.entries:
        failed = "it failed: RuntimeError: out of resource" if bug is out_of_resources else "it is off by"
        assert entry.kept or entry.why.startswith(failed)


def test_what_is_wrong_together_is_taken_back(monkeypatch) -> None:
    network, batch = bert()
    classes = [type(module) for module in network.modules()]
    monkeypatch.setattr("kernels.fuse.WHOLE_TOLERANCE", 1e-9)
    ledger = fused(network, batch)
    assert ledger.kept == ()
    assert ledger.why.startswith("all together are off by")
    assert [type(module) for module in network.modules()] == classes


def test_dropout_follows_torchs_seed_and_drops_as_much_as_it_should() -> None:
    network, batch = bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0)
    fused(network, batch)
    network.train()

    def output(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return passed(network, batch)[0]

    assert torch.equal(output(1), output(1))
    assert not torch.equal(output(1), output(2))
    network.eval()
    assert torch.equal(output(1), output(2))
    layer = network.bert.encoder.layer[0].output  # type: ignore[union-attr, index]
    layer.train()
    layer.LayerNorm = nn.LayerNorm(8)
    x, ones = torch.randn(400, 12), torch.zeros(400, 8)
    with interpreted(), torch.no_grad():
        kept = torch.stack([(layer(x, ones) - layer(x, ones)).abs().amax(dim=1) > 0 for _ in range(2)])
    assert kept.float().mean() > 0.9  # each row is dropped anew


def test_modes_gradients_and_generators_are_left_as_they_were() -> None:
    network, batch = bert()
    network.train()
    network.bert.embeddings.eval()  # type: ignore[union-attr]
    modes = [module.training for module in network.modules()]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fused(network, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_hook_on_what_a_kernel_passes_over_still_hears() -> None:
    network, batch = bert()
    fused(network, batch)
    network.eval()
    expected, heard = passed(network, batch)[0], []
    layer = network.bert.encoder.layer[0]  # type: ignore[union-attr, index]
    for module in (layer.output.LayerNorm, layer.intermediate.dense, network.bert.embeddings.LayerNorm):  # type: ignore[union-attr]
        module.register_forward_hook(lambda module, *_: heard.append(module))
    torch.testing.assert_close(passed(network, batch)[0], expected)
    assert len(heard) == 3


def test_copies_are_fused_and_are_restored_by_themselves() -> None:
    network, batch = bert()
    fused(network, batch)
    twin = copy.deepcopy(network)
    unfuse(network)
    assert type(twin.bert.embeddings).__name__ == "FusedBertEmbeddings"  # type: ignore[union-attr]
    torch.testing.assert_close(passed(twin.eval(), batch)[0], passed(network.eval(), batch)[0])
    assert type(unfuse(twin).bert.embeddings) is type(network.bert.embeddings)  # type: ignore[union-attr]


def test_a_layer_used_twice_is_one_site_with_one_weight() -> None:
    network, batch = bert()
    layers = network.bert.encoder.layer  # type: ignore[union-attr]
    layers.append(layers[0])  # type: ignore[union-attr, index]
    ledger = fused(network, batch)
    assert len(ledger.entries) == 4
    assert layers[0].output is layers[1].output  # type: ignore[index]


def test_frozen_weights_and_other_arithmetic() -> None:
    network, batch = bert()
    for parameter in network.bert.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(False)
    assert len(fused(network, batch).kept) == 4
    network, batch = bert()
    ledger = fused(network, batch, FuseOptions(force=True, dtype=torch.bfloat16))
    assert len(ledger.kept) == 4
    assert ledger.precision == "bfloat16"


def test_a_ledger_is_followed_without_looking_again() -> None:
    network, batch = bert()
    ledger = fused(network, batch)
    again, _ = bert()
    fuse_as(again, Ledger.from_json(ledger.to_json()))
    names = [type(module).__name__ for module in network.modules()]
    assert [type(module).__name__ for module in again.modules()] == names
    with pytest.raises(ValueError, match=r"the ledger keeps bert\.embeddings, and the network has no such site"):
        fuse_as(resnet()[0], ledger)


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_another_activation_is_a_site_that_does_not_fit(activation: str) -> None:
    network, batch = bert(hidden_act=activation)
    ledger = fused(network, batch)
    (entry,) = [entry for entry in ledger.entries if not entry.kept]
    assert entry.site == "bert.encoder.layer.0.intermediate"
    assert entry.why.endswith("the kernel is for the exact GELU")


def test_compiled_whole_and_recomputed() -> None:
    network, batch = bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    fused(network, batch)
    layer, x, residual = network.bert.encoder.layer[0].output.eval(), torch.randn(2, 3, 12), torch.randn(2, 3, 8)  # type: ignore[union-attr, index]
    with interpreted():
        expected = layer(x, residual)
        found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, residual)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, residual)
    torch.testing.assert_close(found, expected)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=2e-2, atol=2e-2)
    network.train()
    torch.manual_seed(5)
    expected_all = passed(network, batch)
    network.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    torch.manual_seed(5)
    for one, other in zip(passed(network, batch), expected_all, strict=True):
        assert torch.equal(one, other)


def test_the_families_layers_are_berts_to_the_letter() -> None:
    def source(family: str, ending: str) -> str:
        module = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
        return inspect.getsource(getattr(module, BERTS[family] + ending).forward)

    for family in BERTS:
        for ending in ("SelfOutput", "Output", "Intermediate"):
            assert source(family, ending) == source("bert", ending), (family, ending)
