from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest
from helpers import Served
from hypothesis import HealthCheck, given, settings

from serve.routes import ROUTES


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    return httpx.get(f"{served.url}/openapi.json").json()


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    served = {
        ("/static_content/{file}" if path.startswith("/static") else path, methods[0].lower())
        for path, methods in ROUTES.items()
    }
    assert described == served


def test_the_limits_and_labels_are_those_in_force(document: dict[str, Any], served: Served) -> None:
    body = document["paths"]["/classify"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]
    assert properties["inputs"]["maxItems"] == 40
    assert properties["top_k"]["maximum"] == len(served.predictor.labels)
    assert document["components"]["schemas"]["Label"]["enum"] == list(served.predictor.labels)
    assert str(256 * 1024) in body["description"]
    assert document["info"]["version"] == served.model_id


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


def test_whatever_the_document_allows_is_answered_as_it_says(served: Served) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    checks = importlib.import_module("schemathesis.checks")
    checks.load_all_checks()
    # A string that is not an image satisfies the document, and is refused all the same.
    excluded = [check for check in checks.CHECKS.get_all() if check.__name__ == "positive_data_acceptance"]
    operations = [
        found.ok() for found in schemathesis.openapi.from_url(f"{served.url}/openapi.json").get_all_operations()
    ]
    assert {"POST /classify", "POST /predict", "GET /model"} <= {operation.label for operation in operations}
    for operation in operations:

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def answered_as_described(case: Any) -> None:
            case.call_and_validate(excluded_checks=excluded)

        answered_as_described()
