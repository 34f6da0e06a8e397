"""`limbeck bento`: what is in a Bento, and that it answers where the rest of the project is not."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest
from helpers import tiny_text_package

import serve
from compress.report.wording import size
from compress.shipping.bento import NEEDED, build_bento, pinned
from serve.errors import PackageError, UserError
from serve.manifest import Manifest
from serve.package import Package

# Takes the project away from an interpreter, installed or not, and what a Bento must do without.
_ALONE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
sys.path[:] = [folder for folder in sys.path if folder != ROOT]
for name in ("torch", "torchvision", "transformers", "sklearn", "train", "compress", "kernels"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """In a folder as a run has it, beside what must not enter the Bento."""
    run = tmp_path_factory.mktemp("bento") / "My Run_2"
    (run / "teacher").mkdir(parents=True)
    (run / "teacher" / "model.safetensors").write_bytes(b"0" * 1000)
    package = tiny_text_package(run / "packages" / "small")
    (package.path / "notes.txt").write_text("not in the manifest")
    (run / "report.json").write_text(json.dumps({"selected": "small"}))
    return package


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@dataclass(frozen=True)
class Bento:
    """What the command said that it built."""

    tag: str
    path: Path
    said: str


@pytest.fixture(scope="module")
def built(package: Package, home: Path) -> Bento:
    """Built by the command, with a BentoML home of its own."""
    command = [sys.executable, "-m", "compress", "bento", str(package.path.parent.parent)]
    done = subprocess.run(command, env={**os.environ, "BENTOML_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, path, *_ = done.stdout.splitlines()
    return Bento(said.partition(": ")[0], Path(path), said)


def test_it_holds_serve_and_the_package_and_nothing_else(built: Bento, package: Package, home: Path) -> None:
    assert built.path.is_relative_to(home)
    source = built.path / "src"
    found = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    server = Path(serve.__file__).parent
    sources = {path.relative_to(server.parent).as_posix() for path in (*server.glob("*.py"), *server.glob("page/*"))}
    names = {*package.manifest.files, "manifest.json", "card.json", "serving.json"}
    assert found == {*sources, *(f"package/{name}" for name in names), "bentofile.yaml"}
    assert Manifest.model_validate_json((source / "package" / "manifest.json").read_text()) == package.manifest
    whole = sum(path.stat().st_size for path in built.path.rglob("*") if path.is_file())
    assert package.size_bytes < whole < 1_000_000
    assert f": {size(whole)} (" in built.said
    assert built.tag.startswith(f"limbeck-my-run-2:{package.manifest.id}-")


def test_its_requirements_are_pinned_and_hold_no_training_library(built: Bento) -> None:
    wanted = (built.path / "env" / "python" / "requirements.txt").read_text().split()
    names = {line.partition("==")[0] for line in wanted}
    assert {*NEEDED, "h11", "starlette"} <= names
    assert names.isdisjoint({"torch", "torchvision", "transformers", "scikit-learn", "onnx", "onnxruntime-gpu"})
    assert all("==" in line for line in wanted)


def test_everything_that_serve_imports_is_required() -> None:
    imported: set[str] = set()
    for file in Path(serve.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    provided = packages_distributions()
    outside = {name for name in imported - sys.stdlib_module_names - {"serve"} if name in provided}
    pins = {line.partition("==")[0] for line in pinned(NEEDED)}
    for name in outside:
        assert pins & {dist.lower().replace("_", "-").removesuffix("-gpu") for dist in provided[name]}, name


def test_it_answers_alone(built: Bento, package: Package, home: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_ALONE.replace("ROOT", repr(str(Path(serve.__file__).parent.parent))))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", built.tag, "--port", str(port)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIMBECK_")}
    (tmp_path / "user").mkdir()
    environ = {**kept, "BENTOML_HOME": str(home), "PYTHONPATH": str(tmp_path), "LIMBECK_DRAIN_SECONDS": "0"}
    environ |= {"HOME": str(tmp_path / "user"), "PYTHONDONTWRITEBYTECODE": "1"}
    before = {path: path.stat().st_mtime_ns for path in built.path.rglob("*")}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            _wait_until_ready(process, client, log)
            assert client.get("/model").json()["id"] == package.manifest.id
            answer = client.post("/classify", json={"inputs": ["a great film"]}).json()
            assert answer["predictions"][0]["label"] in package.manifest.labels
            assert "Limbeck playground" in client.get("/").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()
        # Nothing is written but below BENTOML_HOME and the temporary folder: the rest may be read-only.
        assert list((tmp_path / "user").iterdir()) == []
        assert {path: path.stat().st_mtime_ns for path in built.path.rglob("*")} == before
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(log.read_text())


def test_a_corrupt_package_is_refused(tmp_path: Path) -> None:
    package = tiny_text_package(tmp_path / "package")
    (package.path / "model.onnx").write_bytes(b"swapped")
    with pytest.raises(PackageError, match="corrupt"):
        build_bento(package.path)


@pytest.mark.parametrize("name", ["Mine", "-mine", "mine:1", "a/b", "x" * 64])
def test_a_name_that_cannot_be_one_is_refused(package: Package, name: str) -> None:
    with pytest.raises(UserError, match="no name for a Bento") as caught:
        build_bento(package.path, name)
    assert "dashes" in caught.value.hint
