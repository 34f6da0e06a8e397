"""The ahead-of-time lane: one configuration a kernel, and planted faults. All: `make prove-kernels`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compress import cli
from kernels import catalog
from kernels.ahead import ARCHS, Build, Resources, complaints
from kernels.ahead_launches import launches

ROOT = Path(__file__).resolve().parent.parent
# In a process of its own: where Triton interprets, it cannot compile. All in one, for torch's import takes seconds.
SCRIPT = """
import json, sys
sys.path.insert(0, "tests")
import kernels_planted
from compress import cli
from kernels import catalog

def limbeck(*arguments):
    sys.argv = ["limbeck", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code

folder = sys.argv[1]
codes = [limbeck("kernels", "compile", "--sample", "--arch", "90", "--out", folder + "/sample.json")]
others = ("--only", "int8_gemm", "--arch", "80", "--arch", "100", "--out", folder + "/others.json")
codes.append(limbeck("kernels", "compile", "--sample", *others))
catalog.builds = lambda: [kernels_planted.SOUND, *kernels_planted.FAULTY]
codes.append(limbeck("kernels", "compile", "--arch", "90", "--out", folder + "/planted.json"))
catalog.builds = lambda: [kernels_planted.SOUND, kernels_planted.NO_ONE]
codes.append(limbeck("kernels", "compile", "--launches", "--arch", "90", "--out", folder + "/launches.json"))
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Exit codes, both JSON files and what was printed."""
    folder = tmp_path_factory.mktemp("ahead")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ("sample", "others", "planted", "launches")
    }
    return {"codes": json.loads(done.stdout.splitlines()[-1]), "out": done.stdout, "err": done.stderr, **files}


def test_a_build_of_each_module_compiles_without_complaint(compiled: dict[str, Any]) -> None:
    rows = compiled["sample"]["builds"]
    assert compiled["codes"][0] == 0, compiled["err"]
    assert [row["build"].split()[0] for row in rows] == catalog.stems()
    assert not any(row["complaints"] for row in rows)
    assert all(row["registers"] > 8 and row["arch"] == 90 for row in rows)
    assert compiled["sample"]["versions"].keys() >= {"torch", "triton", "ptxas"}


def test_each_architecture_has_tensor_cores_of_its_own(compiled: dict[str, Any]) -> None:
    rows = compiled["others"]["builds"]
    assert compiled["codes"][1] == 0, compiled["err"]
    assert [row["arch"] for row in rows] == [80, 100]
    assert all(row["mma"] and row["vector_loads"] and not row["complaints"] for row in rows)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("spills", "bytes a thread"),
        ("scalar", "loads from global memory one by one (8 scalar loads, none of 128 bits)"),
        ("without mma", "uses no tensor core instruction"),
        ("broken", "does not compile: CompilationError: arange's range must be a power of 2"),
    ],
)
def test_each_planted_fault_gets_its_complaint(compiled: dict[str, Any], fault: str, said: str) -> None:
    row = next(row for row in compiled["planted"]["builds"] if row["build"] == f"planted {fault}")
    assert len(row["complaints"]) == 1
    assert said in row["complaints"][0]
    assert f"!! planted {fault} on sm_90" in compiled["err"]


def test_faults_decide_the_exit_code_and_spare_the_sound(compiled: dict[str, Any]) -> None:
    assert compiled["codes"][2] == 3
    assert compiled["planted"]["builds"][0]["complaints"] == []
    assert "5 compiled, 4 with complaints" in compiled["out"]


def test_what_only_an_odd_launch_asks_for_is_compiled_too(compiled: dict[str, Any]) -> None:
    rows = {row["build"].partition(", ")[::2]: row["complaints"] for row in compiled["launches"]["builds"]}
    asked = ["count = 1", "numbers of 64 bits", "memory that begins anywhere"]
    assert [row[1] for row in rows] == asked * 2
    complained = {row: said for row, said in rows.items() if said}
    assert list(complained) == [("planted no one", "count = 1")]
    assert "does not compile" in complained["planted no one", "count = 1"][0]
    assert compiled["codes"][3] == 3


def test_launches_are_of_every_kernel_and_every_flag() -> None:
    builds = catalog.builds()
    names = [build.name for build in launches(builds)]
    assert len(set(names)) == len(names)
    for kernel in {build.kernel for build in builds}:
        first = next(build for build in builds if build.kernel is kernel)
        flags = [name for name, value in first.constants.items() if isinstance(value, bool)]
        numbers = [name for name, kind in first.signature.items() if kind in ("i32", "i64")]
        own = [name.removeprefix(f"{first.name}, ") for name in names if name.startswith(f"{first.name}, ")]
        assert len(own) == len(flags) + len(numbers) + (len(numbers) > 1) + 2


def test_a_block_that_asks_for_too_much_shared_memory() -> None:
    build = Build("wide", None, {}, {}, vector_loads=False)
    needs = Resources("wide", 80, 100, 0, 200_000, 0, 0, 0)
    assert complaints(build, needs) == ["wide on sm_80 asks for 200000 bytes of shared memory; a block has 166912"]
    assert complaints(build, Resources("wide", 90, 100, 0, 200_000, 0, 0, 0)) == []


def test_names_of_builds_are_of_their_module_and_differ() -> None:
    names = [build.name for build in catalog.builds()]
    assert {name.split()[0] for name in names} == set(catalog.stems())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "70"], "no kernel can be compiled: TRITON_INTERPRET=1 is set"),
        (["--only", "bias_gel"], "no kernel can be compiled: TRITON_INTERPRET=1 is set"),
    ],
)
def test_where_triton_interprets_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert _failing(monkeypatch, capsys, arguments)[0].startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["--arch", "70"], "--arch 70 is not known", f"expected one of {', '.join(map(str, ARCHS))}"),
        (["--only", "bias_gel"], "there is no kernel 'bias_gel'", "did you mean 'bias_gelu'?"),
    ],
)
def test_what_is_not_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str, hint: str
) -> None:
    monkeypatch.setattr("kernels.ahead_lane.why_not_here", lambda: None)
    assert _failing(monkeypatch, capsys, arguments) == [f"error: {said}", f"hint: {hint}"]


def _failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["limbeck", "kernels", "compile", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()
