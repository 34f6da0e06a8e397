from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest
from helpers import Served
from hypothesis import HealthCheck, given, settings

from serve.routes import ROUTES


@pytest.fixture(scope="module", params=["served", "served_text"])
def either(request: pytest.FixtureRequest) -> Served:
    """The server of the image model, then that of the text model."""
    server: Served = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def document(either: Served) -> dict[str, Any]:
    return httpx.get(f"{either.url}/openapi.json").json()


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    served = {
        (path, methods[0].lower())
        for path, methods in {
            **ROUTES,
            "/models/package": ("GET",),
            "/models/package/classify": ("POST",),
            "/models/package/report": ("GET",),
        }.items()
    }
    assert described == served


def test_the_limits_and_labels_are_those_in_force(document: dict[str, Any], either: Served) -> None:
    body = document["paths"]["/classify"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]
    assert properties["inputs"]["maxItems"] == 40
    assert properties["top_k"]["maximum"] == len(either.predictor.labels)
    assert document["components"]["schemas"]["Label"]["enum"] == list(either.predictor.labels)
    assert str(256 * 1024) in body["description"]
    assert document["info"]["version"] == either.model_id


def test_what_may_be_sent_is_what_the_model_takes(served: Served, served_text: Served) -> None:
    images, texts = (httpx.get(f"{one.url}/openapi.json").json() for one in (served, served_text))
    images, texts = (document["paths"]["/classify"]["post"] for document in (images, texts))
    assert "multipart/form-data" in images["requestBody"]["content"]
    assert "pixels" in images["requestBody"]["description"]
    assert images["parameters"][0]["name"] == "top_k"
    assert list(texts["requestBody"]["content"]) == ["application/json"]
    assert "2000 characters; what is over 16 tokens" in texts["requestBody"]["description"]
    assert "parameters" not in texts


def test_the_example_is_answered(served_text: Served) -> None:
    post = httpx.get(f"{served_text.url}/openapi.json").json()["paths"]["/classify"]["post"]
    response = httpx.post(
        f"{served_text.url}/classify", json=post["requestBody"]["content"]["application/json"]["example"]
    )
    assert response.status_code == 200
    assert len(response.json()["predictions"]) == 2


def test_a_cut_text_is_answered_as_described(served_text: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    operation = schemathesis.openapi.from_url(f"{served_text.url}/openapi.json")["/classify"]["POST"]
    response = operation.Case(body={"inputs": ["good " * 50, "", "good"]}, media_type="application/json").call()
    assert response.json()["predictions"][0]["truncated"] is True
    assert operation.is_valid_response(response)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, list):
            return [found for item in part for found in references(item)]
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [found for item in part.values() for found in references(item)]
        return []

    found = references(document)
    assert len(found) > 20
    for reference in found:
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_whatever_the_document_allows_is_answered_as_it_says(either: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    checks = importlib.import_module("schemathesis.checks")
    checks.load_all_checks()
    # A string that is not an image satisfies the document, and is refused all the same. A text never is.
    images = either.predictor.package.manifest.task == "image"
    excluded = [check for check in checks.CHECKS.get_all() if check.__name__ == "positive_data_acceptance" and images]
    operations = [
        found.ok() for found in schemathesis.openapi.from_url(f"{either.url}/openapi.json").get_all_operations()
    ]
    assert {"POST /classify", "POST /predict", "GET /model"} <= {operation.label for operation in operations}
    for operation in operations:

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def answered_as_described(case: Any) -> None:
            case.call_and_validate(excluded_checks=excluded)

        answered_as_described()
