"""The comparison with real servers, small; and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import httpx
import pytest
from helpers import colored, tiny_package
from PIL import Image
from starlette.testclient import TestClient

from loadtests.payloads import PAYLOADS
from loadtests.peers import litserve_environment, surroundings
from loadtests.peers.answer import Model
from loadtests.peers.bench import main
from loadtests.peers.bodies import SIDE, write_requests
from loadtests.peers.contenders import BARE, OURS, contenders, serving
from loadtests.peers.rounds import Generator, one_round, split_cores
from loadtests.peers.table import rows
from serve.errors import UserError


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """The tiny package in a run's folder, and what a run leaves to be sent to it."""
    package = tiny_package(tmp_path / "run" / "packages" / "tiny")
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    items = [{"input": base64.b64encode(colored(*each)).decode(), "label": "red", "score": 1.0} for each in colours]
    payloads = tmp_path / "run" / PAYLOADS
    payloads.parent.mkdir()
    payloads.write_text(json.dumps({"model_id": package.manifest.id, "task": "image", "items": items}))
    return Model(package.path)


def test_ours_and_bare_answer_alike_and_are_measured(model: Model, tmp_path: Path) -> None:
    files = write_requests(model, tmp_path)
    ours, bare = (each for each in contenders(model, None) if each.name in (OURS, BARE))
    package = model.predictor.package.path
    generator = Generator(None)
    try:
        with serving(ours, package, tmp_path) as first, serving(bare, package, tmp_path) as second:
            with pytest.raises(UserError, match="bare Starlette answered 3 of 3 requests wrongly"):
                one_round(generator, {BARE: (second, _others(files["whole"]))}, 30, 0)
            servers = {OURS: (first, files["whole"]), BARE: (second, files["whole"])}
            measured = rows([one_round(generator, servers, 30, number) for number in range(2)])
    finally:
        generator.close()
    assert {(row.contender, row.connections) for row in measured} == {(OURS, 1), (BARE, 1), (OURS, 16), (BARE, 16)}
    assert all(row.requests_per_second > 0 and row.p50_ms > 0 and row.server_cpu_ms > 0 for row in measured)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{second.port}/")


def _others(file: Path) -> Path:
    """The same requests, each with another label as its right answer."""
    content = json.loads(file.read_text())
    for one in content:
        one["predictions"][0]["top_k"][0]["label"] = "white"
    changed = file.with_name("others.json")
    changed.write_text(json.dumps(content))
    return changed


def test_the_documented_bentoml_service_answers_a_form(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_PACKAGE", str(model.predictor.package.path))
    from loadtests.peers import bentoml_service

    request = json.loads(write_requests(model, tmp_path)["form"].read_text())[0]
    head, _, body = base64.b64decode(request["request"]).partition(b"\r\n\r\n")
    kind = next(line for line in head.decode().split("\r\n") if line.startswith("Content-Type: "))
    with TestClient(bentoml_service.Image.to_asgi(is_main=True)) as client:  # type: ignore[attr-defined]
        answer = client.post("/classify", content=body, headers={"Content-Type": kind.partition(": ")[2]})
    assert answer.json()["predictions"] == request["predictions"]


def test_images_are_sent_as_jpegs_of_one_size(model: Model, tmp_path: Path) -> None:
    content = json.loads(write_requests(model, tmp_path)["whole"].read_text())
    for one in content:
        image = Image.open(io.BytesIO(base64.b64decode(one["request"]).partition(b"\r\n\r\n")[2]))
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE))
        assert one["predictions"][0]["top_k"]


def test_what_cannot_be_compared_is_told(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = shutil.copytree(model.predictor.package.path, tmp_path / "alone")
    with pytest.raises(UserError, match="nothing to send"):
        write_requests(Model(alone), tmp_path)
    assert main([str(tmp_path / "nowhere"), "--litserve", "none"]) == 2
    assert "is not there" in capsys.readouterr().err
    monkeypatch.setattr(surroundings.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match="LitServe is left out: no uv"):
        litserve_environment.environment(tmp_path / "none")


def test_cores_are_as_asked_or_the_generator_has_the_last() -> None:
    assert split_cores("0,2", "1") == (frozenset({0, 2}), frozenset({1}))
    with pytest.raises(UserError, match="names no cores"):
        split_cores("zero", "1")
    servers, generator = split_cores(None, None)
    assert servers is None or not servers & (generator or servers)
