"""Starting and ending real servers: plain `bentoml serve`, `launch` and `start`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers import Served, colored, tiny_package

from serve.errors import PackageError, UserError
from serve.launch import launch, start

ROOT = Path(__file__).parent.parent
LAUNCH = (
    "import sys, pathlib; from serve.launch import launch; launch(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]))"
)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run that selected `small`."""
    run = tmp_path_factory.mktemp("launch") / "digits"
    tiny_package(run / "packages" / "small")
    (run / "report.json").write_text(json.dumps({"selected": "small"}))
    return run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _process(command: list[str], cwd: Path, home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which is ended with it."""
    inherited = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**inherited, "BENTOML_HOME": str(home), "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("the server did not get ready")


def _classify(port: int) -> str:
    response = httpx.post(
        f"http://127.0.0.1:{port}/classify", content=colored(255, 0, 0), headers={"Content-Type": "image/png"}
    )
    return response.json()["predictions"][0]["label"]


def test_plain_bentoml_serve_at_the_root_serves_and_ends_at_sigterm(run_directory: Path, tmp_path: Path) -> None:
    port = _free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(port)]
    environment = {"LIMBECK_PACKAGE": str(run_directory), "__BENTOML_DEBUG_USAGE": "true"}
    with _process(command, ROOT, tmp_path, **environment) as process:
        _wait_until_ready(process, port)
        assert _classify(port) == "red"
        process.terminate()
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 0
    assert "Starting production" in output
    assert "Tracking" not in output  # what BentoML would have sent over the network, it would have logged here
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")


def test_launch_becomes_the_server_wherever_it_is_called_from(run_directory: Path, tmp_path: Path) -> None:
    port = _free_port()
    (tmp_path / "serve").mkdir()  # another package of that name does not get in the way
    (tmp_path / "serve" / "__init__.py").write_text("raise RuntimeError('not this one')")
    with _process([sys.executable, "-P", "-c", LAUNCH, str(run_directory), str(port)], tmp_path, tmp_path) as process:
        _wait_until_ready(process, port)
        assert _classify(port) == "red"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_bentoml_serve_refuses_a_corrupt_package_in_two_lines(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package").path
    content = (package / "model.onnx").read_bytes()
    (package / "model.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(_free_port())]
    with _process(command, ROOT, tmp_path / "home", LIMBECK_PACKAGE=str(package)) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    error, hint = output.splitlines()
    assert error.startswith("error: ")
    assert "model.onnx is corrupt" in error
    assert hint.startswith("hint: ")


def test_launch_and_start_refuse_a_corrupt_package_before_any_server_starts(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package").path
    (package / "model.onnx").write_bytes(b"swapped")
    with pytest.raises(PackageError, match="corrupt"):
        launch(package)
    with pytest.raises(PackageError, match="corrupt"), start(package):
        pytest.fail("it started")


def test_a_port_in_use_is_refused_with_a_hint(served: Served, run_directory: Path) -> None:
    with pytest.raises(UserError, match=f"127.0.0.1:{served.port}") as caught:
        launch(run_directory, port=served.port)
    assert "--port" in caught.value.hint
    with pytest.raises(UserError, match="cannot listen"):
        launch(run_directory, host="not-an-address")
    with pytest.raises(UserError, match="cannot listen"):
        launch(run_directory, port=70000)


def test_start_listens_on_loopback_only(served: Served) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.2:{served.port}/livez", timeout=2)


def test_a_server_that_does_not_get_ready_is_an_error_with_its_last_words(run_directory: Path) -> None:
    with pytest.raises(UserError, match="not ready after"), start(run_directory, timeout_s=0.2):
        pytest.fail("it was ready")
