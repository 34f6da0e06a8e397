"""A real server that asks for tokens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers import colored, tiny_package

from compress.replay import replay
from serve.errors import UserError
from serve.launch import ServerProcess, start
from serve.predictor import Predictor
from serve.runner import scores
from serve.tokens import exposure

ROOT = Path(__file__).parent.parent
OLD, NEW = "the-old-token-0123456789", "the-new-token-0123456789"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server, and the file of its tokens, which others can read."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text(f"# who may ask\n{OLD}\n")
    (folder / "tokens").chmod(0o644)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIMBECK_TOKENS_FILE", str(folder / "tokens"))
        environment.setenv("LIMBECK_ACCESS_LOG", "1")
        with start(tiny_package(folder / "package").path, tokens=True) as server:
            yield server, folder / "tokens"


def _classify(server: ServerProcess, token: str | None) -> httpx.Response:
    headers = {"Content-Type": "image/png"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.post(f"{server.url}/classify", content=colored(255, 0, 0), headers=headers)


def test_only_who_has_a_token_is_answered_and_health_is_open_to_all(guarded: tuple[ServerProcess, Path]) -> None:
    server, _ = guarded
    assert _classify(server, OLD).json()["predictions"][0]["label"] == "red"
    for token in (None, NEW, "x"):
        response = _classify(server, token)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "unauthorized"
        assert response.headers["www-authenticate"].startswith('Bearer realm="limbeck"')
    for path in ("/metrics", "/model", "/openapi.json", "/report", "/docs.json", "/nothing"):
        assert httpx.get(server.url + path).status_code == 401, path
    for path in ("/livez", "/readyz", "/healthz", "/", "/playground/main.js"):
        assert httpx.get(server.url + path).status_code == 200, path


def test_the_document_names_the_scheme(guarded: tuple[ServerProcess, Path]) -> None:
    server, _ = guarded
    document = httpx.get(f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {OLD}"}).json()
    assert document["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert "401" in document["paths"]["/classify"]["post"]["responses"]


def test_a_changed_file_changes_who_may_ask_without_a_restart(guarded: tuple[ServerProcess, Path]) -> None:
    server, file = guarded
    file.write_text(f"{OLD}\n{NEW}\n")
    deadline = time.monotonic() + 10
    while _classify(server, NEW).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert _classify(server, OLD).status_code == 200


def test_verify_sends_the_token_that_the_environment_has(
    guarded: tuple[ServerProcess, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, file = guarded
    predictor = Predictor.load(file.parent / "package")
    items = [colored(255, 0, 0), colored(0, 255, 0)]
    asked = (items, scores(predictor, items), predictor.labels, server.url, predictor.package.manifest.id)
    monkeypatch.delenv("LIMBECK_TOKEN", raising=False)
    with pytest.raises(UserError):
        replay(*asked)
    monkeypatch.setenv("LIMBECK_TOKEN", OLD)
    assert replay(*asked).ok


@pytest.mark.parametrize("token", [OLD, ""])
def test_the_load_generator_sends_it_too(token: str) -> None:
    code = "from loadtests.bodies import as_json; print(as_json([]).headers.get('Authorization'))"
    environ = {"LIMBECK_TOKEN": token, "PYTHONPATH": str(ROOT), "PATH": "/bin"}
    output = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert output.stdout.strip() == (f"Bearer {token}" if token else "None"), output.stderr


def test_no_token_is_in_the_log_and_the_file_that_others_read_is(guarded: tuple[ServerProcess, Path]) -> None:
    server, file = guarded
    _classify(server, NEW + "-mistyped")
    log = server.log.read_text()
    assert f"warning: {file} can be read by other users" in log
    assert "whoever reaches" not in log
    assert OLD not in log
    assert NEW not in log


def test_serving_beyond_loopback_without_tokens_is_warned_of(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package").path
    code = "import click, serve.service as s; s.Classifier.inner.check()"
    command = [sys.executable, "-c", code]
    environ = {"LIMBECK_PACKAGE": str(package), "BENTOML_CONTAINERIZED": "1", "PYTHONPATH": str(ROOT), "PATH": "/bin"}
    output = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "warning: whoever reaches 0.0.0.0 can ask this server" in output.stderr, output.stderr
    for host, warned in (("127.0.0.1", 0), ("localhost", 0), ("::1", 0), ("::", 1), ("10.0.0.1", 1), ("box", 1)):
        assert len(exposure(host, None)) == warned, host


def test_tokens_that_cannot_be_used_end_the_start_in_two_lines(tmp_path: Path) -> None:
    environ = {"LIMBECK_TOKENS": "short", "PYTHONPATH": str(ROOT), "PATH": "/bin"}
    command = [sys.executable, "-c", "import serve.service"]
    output = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert output.returncode == 2
    error, hint = output.stderr.splitlines()
    assert error.startswith("error: token 1 of 1 has 5 characters")
    assert hint.startswith("hint: ")
