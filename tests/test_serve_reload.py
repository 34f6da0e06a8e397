"""Models that change under load, in a real server with two workers."""

from __future__ import annotations

import http.client
import importlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from helpers import LABELS, colored, tiny_package, tiny_text_package
from hypothesis import HealthCheck, given, settings

from serve.admin_client import load_model
from serve.errors import UserError
from serve.launch import ServerProcess, start
from serve.predictor import Predictor
from serve.runner import scores

TOKEN = "a-token-for-the-tests-alone"
ITEM = colored(200, 100, 50)
HOT, COLD = 1.0, 4.0  # temperatures: two models that give other scores to the same item


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models: `main` is served at the start, `spare` is not."""
    folder = tmp_path_factory.mktemp("models")
    tiny_package(folder / "main", temperature=HOT)
    tiny_package(folder / "spare", temperature=COLD)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    words = tiny_text_package(tmp_path_factory.mktemp("text") / "package").path
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIMBECK_WORKERS", "2")
        environment.setenv("LIMBECK_ADMIN_TOKEN", TOKEN)
        environment.setenv("LIMBECK_MODELS_DIR", str(folder))
        environment.setenv("LIMBECK_PACKAGES", f"words={words}")
        with start(folder / "main") as server:
            _wait_for_both(server)
            yield server


def _wait_for_both(server: ServerProcess) -> None:
    """The server is ready with the first of its workers, and the other may still be on its way."""
    deadline = time.monotonic() + 60
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while httpx.get(f"{server.url}/admin/models", headers=headers, timeout=30).json()["workers"]["of"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def client(server: ServerProcess, folder: Path) -> Iterator[httpx.Client]:
    """An administrator's; what `main` is at the start of each test is the hot model."""
    with httpx.Client(base_url=server.url, timeout=30, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        tiny_package(folder / "main", temperature=HOT)
        assert client.put("/admin/models/main", json={"package": "main"}).status_code == 200
        yield client


def _expected(*folders: Path) -> dict[str, float]:
    """The best score of the item, by the id of the model that gives it."""
    predictors = [Predictor.load(folder) for folder in folders]
    return {each.package.manifest.id: float(scores(each, [ITEM]).max()) for each in predictors}


class Load:
    """Clients that ask until the block ends, each over a connection of its own, and keep every answer."""

    def __init__(self, port: int, path: str, clients: int = 4) -> None:
        self._port, self._path = port, path
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.answers: list[tuple[float, float, int, Any]] = []  # sent, received, status, content
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._ended.is_set():
            try:
                sent = time.monotonic()
                connection.request("POST", self._path, ITEM, {"Content-Type": "image/png"})
                response = connection.getresponse()
                self.answers.append((sent, time.monotonic(), response.status, json.loads(response.read())))
            except Exception as error:
                self.failures.append(repr(error))
        connection.close()

    def check(self, expected: dict[str, float]) -> set[str]:
        """No request failed, and each was answered by the model that it names. Returns the ids of all that answered."""
        assert not self.failures
        assert len(self.answers) > 20
        for _, _, status, content in self.answers:
            assert status == 200, content
            score = content["predictions"][0]["score"]
            assert score == pytest.approx(expected[content["model"]["id"]], abs=1e-6)
        return {content["model"]["id"] for _, _, _, content in self.answers}


def test_reloading_under_load_fails_no_request_and_answers_none_with_another_model(
    server: ServerProcess, client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    expected = _expected(
        *(tiny_package(tmp_path / str(temperature), temperature=temperature).path for temperature in (HOT, COLD))
    )
    served: list[tuple[float, str]] = []  # since when every answer comes from which model
    with Load(server.port, "/classify") as load:
        for temperature in (COLD, HOT, COLD, HOT, COLD):
            wanted = tiny_package(folder / "main", temperature=temperature).manifest.id
            answer = client.put("/admin/models/main", json={})
            assert (answer.status_code, answer.json()["workers"]) == (200, {"changed": 2, "of": 2})
            served.append((time.monotonic(), wanted))
            time.sleep(0.15)
    assert load.check(expected) == set(expected)
    for (since, wanted), (until, _) in zip(served, [*served[1:], (time.monotonic(), "")], strict=True):
        between = [each for each in load.answers if each[0] > since and each[1] < until - 1]
        assert {content["model"]["id"] for _, _, _, content in between} <= {wanted}
    after = [content["model"]["id"] for sent, _, _, content in load.answers if sent > served[-1][0]]
    assert after
    assert set(after) == {served[-1][1]}


def _workers(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children(recursive=True)
    return [child for child in children if "_bentoml_impl.worker.service" in " ".join(child.cmdline())]


def test_a_worker_that_comes_back_serves_what_the_others_serve(
    server: ServerProcess, client: httpx.Client, folder: Path
) -> None:
    wanted = tiny_package(folder / "main", temperature=COLD).manifest.id
    assert client.put("/admin/models/main", json={}).status_code == 200
    tiny_package(folder / "main", temperature=7.0)  # on disk by now, and asked for by nobody
    killed = _workers(server)[0]
    killed.kill()
    deadline = time.monotonic() + 60
    while killed.is_running() or client.get("/admin/models").json()["workers"] != {"changed": 2, "of": 2}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with Load(server.port, "/classify") as load:
        time.sleep(0.5)
    assert {content["model"]["id"] for _, _, _, content in load.answers} == {wanted}


def test_a_failed_load_keeps_the_old_and_says_why(server: ServerProcess, client: httpx.Client, folder: Path) -> None:
    expected = _expected(folder / "main")
    (folder / "main" / "model.onnx").write_bytes(b"not a model")
    with Load(server.port, "/models/main/classify", clients=2) as load:
        refused = client.put("/admin/models/main", json={})
        time.sleep(0.3)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "not_changed"
    assert "model.onnx is corrupt" in refused.json()["error"]["message"]
    load.check(expected)


def test_models_come_and_go_by_name(server: ServerProcess, client: httpx.Client, folder: Path) -> None:
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["main", "words"]
    assert client.get("/models/words").json()["task"] == "text"
    words = client.post("/models/words/classify", json={"inputs": ["a very good film"]}).json()
    assert words["model"]["id"] == client.get("/models/words").json()["id"]
    raw = {"Content-Type": "image/png"}
    absent = client.post("/models/extra/classify", content=ITEM, headers=raw)
    assert (absent.status_code, absent.json()["error"]["code"]) == (404, "unknown_model")
    assert client.put("/admin/models/extra", json={"package": "spare"}).status_code == 200
    (wanted,) = _expected(folder / "spare")
    assert client.post("/models/extra/classify", content=ITEM, headers=raw).json()["model"]["id"] == wanted
    document = client.get("/openapi.json").json()
    assert "/models/extra/classify" in document["paths"]
    assert document["components"]["schemas"]["extra.Label"]["enum"] == list(LABELS)
    assert client.put("/admin/default", json={"model": "extra"}).json()["default"] == "extra"
    assert client.post("/classify", content=ITEM, headers=raw).json()["model"]["id"] == wanted
    in_the_way = client.delete("/admin/models/extra")
    assert (in_the_way.status_code, in_the_way.json()["error"]["message"]) == (409, "'extra' is the default")
    assert client.put("/admin/default", json={"model": "main"}).status_code == 200
    assert client.delete("/admin/models/extra").status_code == 200
    metrics = client.get("/metrics").text
    assert f'limbeck_served{{model="{wanted}",name="extra"}} 0.0' in metrics
    assert f'limbeck_served{{model="{client.get("/models/words").json()["id"]}",name="words"}} 1.0' in metrics
    assert client.post("/models/extra/classify", content=ITEM, headers=raw).status_code == 404


@pytest.mark.parametrize("given", [None, "Bearer another-token-that-is-long", f"Basic {TOKEN}", TOKEN, "Bearer x"])
def test_without_the_admin_token_nothing_changes(server: ServerProcess, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    for method, path in (("PUT", "/admin/models/main"), ("DELETE", "/admin/models/words"), ("GET", "/admin/models")):
        response = httpx.request(method, server.url + path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("../text/package", "the folder of models has no"),
        ("..", "the folder of models has no"),
        ("/etc", "the folder of models has no"),
        ("spar", "the folder of models has no 'spar'"),
        ("link", "a link that leads out of the folder"),
    ],
)
def test_a_request_takes_models_from_their_folder_alone(
    client: httpx.Client, folder: Path, tmp_path: Path, package: str, message: str
) -> None:
    outside = tiny_package(tmp_path / "outside").path
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to(outside)
    response = client.put("/admin/models/extra", json={"package": package})
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_changed")
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[]", b'{"packages": "x"}', b'{"package": 3}', b"{", b'"x"'])
def test_a_body_that_is_not_understood_changes_nothing(client: httpx.Client, body: bytes) -> None:
    assert client.put("/admin/models/main", content=body).status_code in (400, 422)
    assert client.put("/admin/models/words.2", content=b"").status_code == 404  # nothing to load it again from


def test_the_command_loads_a_model_or_says_why_not(
    server: ServerProcess, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_ADMIN_TOKEN", TOKEN)
    assert load_model(server.url, "main", "spare")["workers"] == {"changed": 2, "of": 2}
    with pytest.raises(UserError, match="no model is served under this name") as caught:
        load_model(server.url, "mian")
    assert caught.value.hint == "did you mean 'main'?"
    monkeypatch.setenv("LIMBECK_ADMIN_TOKEN", "some-other-token-of-mine")
    with pytest.raises(UserError, match="needs the admin token"):
        load_model(server.url, "main")


def test_admin_requests_are_answered_as_the_document_says(server: ServerProcess, client: httpx.Client) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    checks = importlib.import_module("schemathesis.checks")
    checks.load_all_checks()
    excluded = [check for check in checks.CHECKS.get_all() if check.__name__ == "positive_data_acceptance"]
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    admin = [operation for operation in operations if operation.path.startswith("/admin/")]
    assert sorted(operation.label for operation in admin) == [
        "DELETE /admin/models/{name}",
        "GET /admin/models",
        "PUT /admin/default",
        "PUT /admin/models/{name}",
    ]
    for operation in admin:

        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def answered_as_described(case: Any) -> None:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            case.call_and_validate(headers=headers, excluded_checks=excluded)

        answered_as_described()
    for response in (client.put("/admin/models/main", json={}), client.get("/admin/models")):
        operation = document["/admin/models/{name}"]["PUT"]
        assert operation.is_valid_response(response)
