"""The outer layers around a stand-in for BentoML's application."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from helpers import colored, tiny_package
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from serve.edge import Edge
from serve.engine import Engine
from serve.gate import Gate
from serve.limits import Limits
from serve.predictor import Predictor
from serve.registry import Registry
from serve.routes import ROUTES, Addresses, Routes
from serve.tokens import Tokens

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = Engine(Predictor(tiny_package(tmp_path_factory.mktemp("edge") / "package")), Limits())
    yield engine
    engine.close()


def _state(engine: Engine | None, gate: Gate | None = None) -> dict[str, Any]:
    """What the service tells the routes."""
    return {"models": engine and Registry({"tiny": engine}, "tiny"), "gate": gate or Gate(8, 30)}


def _client(answer: Callable[[Request], Response], engine: Engine | None = None) -> TestClient:
    """A client of our layers around an application that gives `answer` for what we do not answer ourselves."""

    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        await answer(Request(scope, receive))(scope, receive, send)

    return TestClient(Edge(Routes(bentoml, _state(engine)), Addresses(admin=False)))


def _fine(request: Request) -> Response:
    return PlainTextResponse("fine")


def _error(response: httpx.Response) -> dict[str, str]:
    """The error of a response, which must be in the one form."""
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert sorted(error) == ["code", "hint", "message", "request_id"]
    assert response.headers["x-request-id"] == error["request_id"]
    assert response.headers["content-type"] == "application/json"
    assert error["message"]
    return error


def test_what_is_not_ours_is_passed_on_with_a_request_id() -> None:
    response = _client(_fine).get("/livez", headers={"X-Request-ID": "abc-1.2:3_4"})
    assert (response.status_code, response.text) == (200, "fine")
    assert response.headers["x-request-id"] == "abc-1.2:3_4"


@pytest.mark.parametrize("given", ["", "has space", "x" * 65, "<script>", "é", '"'])
def test_a_request_id_that_is_not_well_formed_is_replaced(given: str) -> None:
    client = _client(_fine)
    ids = {client.get("/livez", headers={"X-Request-ID": given.encode()}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert given not in ids
    assert all(len(made) == 16 for made in ids)


def test_an_unknown_address_never_reaches_bentoml() -> None:
    def never(request: Request) -> Response:
        raise AssertionError("it was passed on")

    client = _client(never)
    for path in (
        "/nothing",
        "/classify/",
        "/classifi",
        "/%2e%2e/etc",
        "/playground/../service.py",
        "/playground/x",
    ):
        response = client.get(path)
        assert response.status_code == 404, path
        assert _error(response)["code"] == "not_found"
    assert _error(client.get("/clasify"))["hint"] == "did you mean '/classify'?"


def test_another_method_is_met_with_the_right_ones() -> None:
    client = _client(_fine)
    for method, path, allow in (
        ("GET", "/classify", "POST"),
        ("POST", "/model", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
    ):
        response = client.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allow
        assert _error(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("status", "code", "retry"),
    [
        (400, "bad_request", None),
        (404, "bad_request", None),
        (429, "too_many_requests", "1"),
        (500, "internal", None),
        (503, "not_ready", "1"),
        (504, "timeout", None),
    ],
)
def test_bentomls_own_errors_get_our_form(status: int, code: str, retry: str | None) -> None:
    secret = JSONResponse({"error": "secret detail", "detail": ["at /srv/app.py"]}, status_code=status)
    response = _client(lambda request: secret).get("/readyz")
    assert response.status_code == status
    assert _error(response)["code"] == code
    assert "secret" not in response.text
    assert response.headers.get("retry-after") == retry


def test_an_error_that_is_streamed_is_replaced_whole() -> None:
    from starlette.responses import StreamingResponse

    response = _client(lambda request: StreamingResponse(iter(["a", "b", "c"]), status_code=500)).get("/readyz")
    assert _error(response)["code"] == "internal"


def test_an_exception_is_a_500_that_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request) -> Response:
        raise RuntimeError("secret detail")

    with caplog.at_level(logging.ERROR):
        response = _client(fail).get("/livez", headers={"X-Request-ID": "find-me"})
    assert response.status_code == 500
    assert _error(response)["code"] == "internal"
    assert "secret" not in response.text
    assert "find-me" in caplog.text
    assert "secret detail" in caplog.text


def test_an_application_that_answers_nothing_is_a_500() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return

    response = TestClient(Edge(silent, ROUTES)).get("/livez")
    assert response.status_code == 500
    assert _error(response)["code"] == "internal"


def test_a_failing_model_is_a_500_that_says_nothing_of_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(inputs: Any) -> Any:
        raise MemoryError("secret detail")

    monkeypatch.setattr(engine._predictor, "compute", fail)
    response = _client(_fine, engine).post("/classify", content=colored(1, 2, 3), headers=PNG)
    assert response.status_code == 500
    assert _error(response)["code"] == "internal"
    assert "secret" not in response.text


def test_our_own_errors_keep_their_words(engine: Engine) -> None:
    response = _client(_fine, engine).post("/classify", content=b"nonsense", headers=PNG)
    assert response.status_code == 422
    assert _error(response)["code"] == "not_an_image"
    assert "PNG" in _error(response)["hint"]


def test_an_answer_says_where_its_time_went(engine: Engine) -> None:
    timing = _client(_fine, engine).post("/classify", content=colored(1, 2, 3), headers=PNG).headers["server-timing"]
    assert [part.split(";dur=")[0] for part in timing.split(", ")] == [
        "queue",
        "preprocess",
        "compute",
        "overhead",
    ]
    assert all(float(part.split("=")[1]) >= 0 for part in timing.split(", "))


def test_the_access_log_has_a_line_for_each_request_and_nothing_of_what_was_sent(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    routes = Routes(_nothing, _state(engine), access_log=True)
    client = TestClient(Edge(routes, ROUTES))
    with caplog.at_level(logging.INFO, logger="bentoml.limbeck"):
        client.post("/classify", content=colored(1, 2, 3), headers={**PNG, "X-Request-ID": "first"})
        client.post("/classify?secret=1", content=b"secret", headers={**PNG, "X-Request-ID": "second"})
    good, bad = (record for record in caplog.records if record.getMessage().startswith("classify"))
    assert (
        good.__dict__["fields"] | {"model": engine.model_id, "request_id": "first", "status": 200, "inputs": 1}
        == (good.__dict__["fields"])
    )
    assert bad.__dict__["fields"] == {
        "model": engine.model_id,
        "request_id": "second",
        "status": 422,
        "inputs": None,
    }
    assert "secret" not in caplog.text


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it was passed on")


def test_a_request_too_many_is_refused_with_retry_after(engine: Engine) -> None:
    client = TestClient(Edge(Routes(_nothing, _state(engine, Gate(0, 30))), ROUTES))
    response = client.post("/classify", content=colored(1, 2, 3), headers=PNG)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert _error(response)["code"] == "too_many_requests"


def test_a_request_that_takes_too_long_is_a_504(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = engine._predictor.compute

    def slow(inputs: Any) -> Any:
        time.sleep(0.1)
        return compute(inputs)

    monkeypatch.setattr(engine._predictor, "compute", slow)
    client = TestClient(Edge(Routes(_nothing, _state(engine, Gate(1, 0.05))), ROUTES))
    response = client.post("/classify", content=colored(1, 2, 3), headers=PNG)
    assert (response.status_code, _error(response)["code"]) == (504, "timeout")


def test_a_head_request_is_a_get_without_its_body(engine: Engine) -> None:
    client = _client(_fine, engine)
    head, get = client.head("/model"), client.get("/model")
    assert head.status_code == 200
    assert head.headers["content-length"] == get.headers["content-length"]


def test_a_websocket_is_closed_before_it_opens() -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)), _client(_fine).websocket_connect("/livez"):
        pytest.fail("it was accepted")


def test_with_tokens_nothing_is_said_without_one_not_even_which_addresses_there_are() -> None:
    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("fine")(scope, receive, send)

    token = "0123456789abcdef"
    client = TestClient(Edge(bentoml, ROUTES, Tokens([token], None)))
    for path in ("/metrics", "/model", "/report", "/nothing"):
        response = client.get(path)
        assert response.status_code == 401
        assert _error(response)["code"] == "unauthorized"
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/livez").status_code == 200
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text == "fine"


def test_every_answer_has_the_headers_that_keep_browsers_from_using_it() -> None:
    client = _client(_fine)
    for response in (client.get("/livez"), client.get("/nothing"), client.post("/livez"), client.get("/schema.json")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
