from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import LABELS, TEXT_LABELS, tiny_package, tiny_text_package

from serve.limits import Limits
from serve.models import open_engine
from serve.openapi import secured
from serve.openapi_models import whole_document


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("models")
    engines = {
        "images": open_engine(tiny_package(folder / "images").path, Limits()),
        "texts": open_engine(tiny_text_package(folder / "texts").path, Limits()),
    }
    described = {name: engine.describe() for name, engine in engines.items()}
    for engine in engines.values():
        engine.close()
    return described


def test_each_model_has_its_own_addresses_bodies_and_labels(models: dict[str, dict[str, Any]]) -> None:
    document = whole_document(models, "texts")
    schemas = document["components"]["schemas"]
    assert schemas["Label"]["enum"] == schemas["texts.Label"]["enum"] == list(TEXT_LABELS)
    assert schemas["images.Label"]["enum"] == list(LABELS)
    images, texts = (document["paths"][f"/models/{name}/classify"]["post"] for name in ("images", "texts"))
    assert "multipart/form-data" in images["requestBody"]["content"]
    assert list(texts["requestBody"]["content"]) == ["application/json"]
    answer = images["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/images.Classification"}
    prediction = schemas["images.Classification"]["properties"]["predictions"]["items"]["oneOf"][0]
    assert prediction == {"$ref": "#/components/schemas/images.Prediction"}
    assert schemas["images.Prediction"]["properties"]["label"] == {"$ref": "#/components/schemas/images.Label"}
    assert document["info"]["version"] == models["texts"]["id"]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations if "operationId" in operation]
    assert len(set(ids)) == len(ids) == 4


def test_every_reference_leads_somewhere(models: dict[str, dict[str, Any]]) -> None:
    document = whole_document(models, "images", admin=True)
    text = json.dumps(document)
    references = {piece.split('"')[0] for piece in text.split('"$ref": "#/')[1:]}
    assert len(references) > 15
    for reference in references:
        target: Any = document
        for name in reference.split("/"):
            target = target[name]


def test_admin_requests_are_described_only_where_there_are_any(models: dict[str, dict[str, Any]]) -> None:
    assert "/admin/models" not in whole_document(models, "images")["paths"]
    document = secured(whole_document(models, "images", admin=True))  # and the others ask for a token of another kind
    assert sorted(document["components"]["securitySchemes"]) == ["admin", "token"]
    put = document["paths"]["/admin/models/{name}"]["put"]
    assert put["security"] == [{"admin": []}]
    assert document["security"] == [{"token": []}]
