"""fit.compile: torch.compile while training, in place. All but its last stage, which takes a minute, is run here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_classifier, image_inputs

from compress.export import export_onnx
from serve.errors import UserError
from train import compiled as compiled_module
from train.classifier import load_classifier
from train.compiled import check_compiler
from train.epochs import EpochRecord
from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following

GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 40)
SPLIT = image_inputs(IMAGES, TARGETS)
CPU = torch.device("cpu")


def trained(folder: Path, on: bool, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    def stop(record: EpochRecord, epochs: int) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise RuntimeError("stopped here")

    classifier = image_classifier(IMAGES, tuple("abcd"), model="builtin:mlp-8")
    config = FitConfig(epochs=2, batch_size=20, compile=on, precision="fp32")
    fit(classifier, config, SPLIT, SPLIT, 5, folder, following=Following(stop))
    return classifier.state_dict()


def test_it_learns_the_same_resumes_and_leaves_a_plain_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> torch.fx.GraphModule:
        used.append(graph)
        return graph

    plain = trained(tmp_path / "plain", on=False)
    monkeypatch.setattr(compiled_module, "BACKEND", backend)
    with pytest.raises(RuntimeError, match="stopped here"):
        trained(tmp_path / "compiled", on=True, stop_after=1)
    assert len(used) > 1  # the network, not only what tries the compiler
    found = trained(tmp_path / "compiled", on=True)
    assert plain.keys() == found.keys()
    for name, value in plain.items():
        assert torch.allclose(value, found[name], atol=1e-5), name
    before = len(used)
    saved = load_classifier(tmp_path / "compiled")
    assert saved.state_dict().keys() == plain.keys()
    assert export_onnx(saved)
    assert len(used) == before


def test_a_machine_without_a_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing that was compiled before
    torch.compiler.reset()
    with pytest.raises(UserError, match=r"torch\.compile does not work on this machine: .*no-compiler") as refused:
        check_compiler(CPU)
    assert "g++" in refused.value.hint
    torch.compiler.reset()
