from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import close, interpreter

from kernels import bias_gelu as module
from kernels import catalog, tuning
from kernels.runtime import interpreted
from kernels.tuning import Entry, Sizes, Tunable, bucket, read, write

PLANTED = {"ROWS": 8, "BLOCK": 64, "num_warps": 4, "num_stages": 2}
ENTRY = Entry("bias_gelu forward", 90, "bf16", "C<=2048", PLANTED, "NVIDIA H200", 10.0, 12.0, {"triton": "3.9.0"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the committed files."""
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    tuning.forget()
    yield tmp_path
    tuning.forget()


def test_without_a_file_the_heuristic_decides(folder: Path) -> None:
    assert module.FORWARD.committed("bf16", C=1536) == [module.FORWARD.heuristic(C=1536)]
    assert module.FORWARD.entry_for(90, "NVIDIA H200", "bf16", {"C": 1536}) is None


def test_what_is_written_is_read_and_the_older_entry_of_the_same_question_goes(folder: Path) -> None:
    write("bias_gelu", [ENTRY, replace(ENTRY, dtype="fp16")])
    write("bias_gelu", [replace(ENTRY, median_us=9.0)])
    assert {(entry.dtype, entry.median_us) for entry in read("bias_gelu")} == {("bf16", 9.0), ("fp16", 10.0)}


def test_an_entry_holds_for_its_bucket_dtype_and_architecture_alone(folder: Path) -> None:
    write("bias_gelu", [ENTRY])
    found = module.FORWARD.entry_for
    assert found(90, "NVIDIA H200", "bf16", {"C": 1025}) == ENTRY
    assert found(90, "NVIDIA H200", "bf16", {"C": 2048}) == ENTRY
    for arch, dtype, columns in ((80, "bf16", 1536), (90, "fp16", 1536), (90, "bf16", 1024), (90, "bf16", 2049)):
        assert found(arch, "NVIDIA H200", dtype, {"C": columns}) is None


def test_the_same_gpu_comes_before_another_of_its_architecture(folder: Path) -> None:
    other = replace(ENTRY, gpu="NVIDIA H100 80GB HBM3", sizes={**PLANTED, "ROWS": 2})
    write("bias_gelu", [other, ENTRY])
    found = module.FORWARD.entry_for
    assert [found(90, gpu, "bf16", {"C": 1536}) for gpu in (ENTRY.gpu, other.gpu)] == [ENTRY, other]
    write("bias_gelu", [])
    assert found(90, "NVIDIA GH200", "bf16", {"C": 1536}) is not None


def test_a_launch_on_a_gpu_takes_the_entry_and_asks_the_device_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: asked.append(device) or ENTRY.gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    write("bias_gelu", [ENTRY])

    class OnGpu:
        device, dtype = torch.device("cuda", 0), torch.bfloat16

    for _ in range(3):
        assert module.FORWARD.sizes(OnGpu(), C=1536) == PLANTED  # type: ignore[arg-type]
    assert module.FORWARD.sizes(OnGpu(), C=64) == module.FORWARD.heuristic(C=64)  # type: ignore[arg-type]
    assert len(asked) == 2


def test_committed_sizes_are_compiled_beside_the_heuristics(folder: Path) -> None:
    before = module.builds()
    write("bias_gelu", [ENTRY])
    added = [build for build in module.builds() if build not in before]
    assert [build.name for build in added] == [
        "bias_gelu forward bf16 C=1536 (ROWS=8 BLOCK=64 num_warps=4 num_stages=2)"
    ]
    assert added[0].constants.items() >= {"C": 1536, "ROWS": 8, "BLOCK": 64}.items()


def test_sizes_from_before_a_change_of_the_kernel_are_left_out_and_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("bias_gelu", [replace(ENTRY, sizes={"COLUMNS": 5, "num_warps": 4})])
    with caplog.at_level(logging.WARNING, "limbeck.kernels"):
        assert module.FORWARD.entry_for(90, ENTRY.gpu, "bf16", {"C": 1536}) is None
    assert "bias_gelu forward for C<=2048 are from another version (COLUMNS, num_warps; expected" in caplog.text


@interpreter
@pytest.mark.parametrize("tunable", module.TUNABLES)
def test_every_candidate_gives_the_same_result(tunable: Tunable) -> None:
    torch.manual_seed(0)
    x, bias, grad = torch.randn(37, 100), torch.randn(100), torch.randn(37, 100)
    exact = [leaf.double().requires_grad_() for leaf in (x, bias)]
    torch.nn.functional.gelu(exact[0] + exact[1]).backward(grad.double())
    forced = tunable.candidates(C=100)
    assert len({tuple(sizes.items()) for sizes in forced}) == len(forced) > 3
    for sizes in forced:
        assert sizes.keys() == tunable.heuristic(C=100).keys()
        mine = [leaf.clone().requires_grad_() for leaf in (x, bias)]
        with interpreted(), tunable.forced(sizes):
            module.bias_gelu(*mine).backward(grad)
        for leaf, expected in zip(mine, exact, strict=True):
            assert leaf.grad is not None
            assert expected.grad is not None
            close(leaf.grad, expected.grad, 37)


@interpreter
def test_sizes_that_are_forced_are_those_of_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Sizes] = []

    class Spy:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *_, **sizes: launched.append({"grid": grid, **sizes})

    monkeypatch.setattr(module, "_forward_kernel", Spy())
    with interpreted(), module.FORWARD.forced(PLANTED):
        module.bias_gelu(torch.zeros(16, 100), torch.zeros(100))
    (launch,) = launched
    assert launch.items() >= {"grid": (2, 2), "C": 100, **PLANTED}.items()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"schema": 2, "entries": []}, "schema 2: expected 1"),
        ({"schema": 1, "entries": [{"op": "bias_gelu forward"}]}, "missing 7 required positional arguments"),
        ({"schema": 1, "entries": [{**vars(ENTRY), "sizes": {"ROWS": 0}}]}, "expected positive whole numbers"),
        ({"schema": 1, "entries": [{**vars(ENTRY), "sizes": {"ROWS": "4"}}]}, "expected positive whole numbers"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, content: dict[str, Any], said: str) -> None:
    (folder / "bias_gelu.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        read("bias_gelu")


def test_the_bucket_of_a_shape() -> None:
    shapes = ({"C": 1}, {"C": 2}, {"C": 3}, {"C": 1024}, {"N": 1025, "K": 768})
    assert [bucket(shape) for shape in shapes] == ["C<=1", "C<=2", "C<=4", "C<=1024", "N<=2048,K<=1024"]


def test_the_committed_files_are_readable_fit_their_kernels_and_name_their_gpu() -> None:
    known = {tunable.op: tunable for module in catalog.MODULES for tunable in getattr(module, "TUNABLES", ())}
    for path in tuning.FOLDER.glob("*.json"):
        for entry in read(path.stem):
            assert entry.op.split()[0] == path.stem
            assert entry.gpu
            assert known[entry.op]._fits(entry), f"{path.name}: {entry.op}: tune again"
