"""The OpenAPI document of a server with several models: what holds for the default, and the same for each by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from serve.openapi import Schema, document, error_response, file_operation, responses, to_object, to_ref
from serve.playground import REPORT_ADDRESS, assets

_TEXT = {"type": "string"}
_MODEL = to_object({"id": _TEXT, "name": _TEXT})
_LISTED = to_object({"name": _TEXT, "default": {"type": "boolean"}, "model": _MODEL, "task": _TEXT})
_SERVED = to_object({"name": _TEXT, "id": _TEXT, "source": _TEXT, "default": {"type": "boolean"}})
_COUNT = {"type": "integer", "minimum": 0}
_SCHEMAS: Schema = {
    "Models": to_object({"default": _TEXT, "models": {"type": "array", "items": _LISTED}}),
    "Served": to_object(
        {
            "default": _TEXT,
            "models": {"type": "array", "items": _SERVED},
            "workers": to_object({"changed": _COUNT, "of": _COUNT}),
        }
    ),
}
_SECURITY: Schema = {"security": [{"admin": []}]}
_SCHEME = {"type": "http", "scheme": "bearer", "description": "The server's admin token"}
_ADMIN_ERRORS = ("400", "401", "404", "408", "409", "413", "422", "500")
_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
}


def whole_document(
    models: Mapping[str, dict[str, Any]], default: str, admin: bool = False, page: bool = True
) -> Schema:
    """The OpenAPI 3.1 document of a server that serves `models`: by name, what GET /models/NAME answers.

    `page` is whether the playground and the reports are served.
    """
    whole = document(models[default])
    paths, components = whole["paths"], whole["components"]
    paths["/models"] = {"get": {"summary": "The models that are served", "responses": responses("Models", ("500",))}}
    components["schemas"].update(_SCHEMAS)
    for name, model in sorted(models.items()):
        own = _prefixed(document(model), name)
        paths[f"/models/{name}"] = own["paths"]["/model"]
        paths[f"/models/{name}/classify"] = own["paths"]["/classify"]
        components["schemas"].update({f"{name}.{key}": own["components"]["schemas"][key] for key in _OWN})
    if page:
        paths.update(_page_paths(models))
    if admin:
        paths.update(_admin_paths())
        components["securitySchemes"] = {**components.get("securitySchemes", {}), "admin": _SCHEME}
        components["responses"]["401"] = error_response("The admin token is missing or another")
        components["responses"]["409"] = error_response("Nothing has changed, and why")
    return whole


_OWN = ("Label", "Prediction", "Classification", "Model")  # the schemas that differ from model to model


def _prefixed(own: Schema, name: str) -> Schema:
    """The document of one model, whose schemas and operations have its name before their own."""
    text = json.dumps(own)
    for key in _OWN:
        text = text.replace(f'"#/components/schemas/{key}"', f'"#/components/schemas/{name}.{key}"')
    renamed: Schema = json.loads(text)
    operation = renamed["paths"]["/classify"]["post"]
    operation["operationId"] = f"classify.{name}"
    operation["responses"]["404"] = to_ref("responses", "404")
    renamed["paths"]["/model"]["get"]["responses"]["404"] = to_ref("responses", "404")
    return renamed


def _page_paths(models: Collection[str]) -> Schema:
    """The playground's files, and the report beside each model."""
    page = {path: file_operation("A file of that page", each.kind.decode()) for path, each in assets().items()}
    page["/"]["summary"] = "A page to try the models"
    report = {"get": file_operation("The report of the run that made the model", "text/html; charset=utf-8", "404")}
    own = {f"/models/{name}{REPORT_ADDRESS}": report for name in sorted(models)}
    return {**{path: {"get": operation} for path, operation in page.items()}, REPORT_ADDRESS: report, **own}


def _admin_paths() -> Schema:
    changed = {**responses("Served", _ADMIN_ERRORS)}
    changed["202"] = {**changed["200"], "description": "Some workers have yet to change over"}
    take = to_object({"package": {"type": ["string", "null"]}}, optional=("package",))
    choose = to_object({"model": _TEXT})
    listed = responses("Served", ("401", "500"))
    return {
        "/admin/models": {"get": {"summary": "What is served, and from where", **_SECURITY, "responses": listed}},
        "/admin/models/{name}": {
            "parameters": [_NAME],
            "put": {
                "summary": "Load a model, or load it again",
                **_SECURITY,
                "requestBody": _json(take),
                "responses": changed,
            },
            "delete": {"summary": "Serve a model no longer", **_SECURITY, "responses": changed},
        },
        "/admin/default": {
            "put": {
                "summary": "Which model answers what names none",
                **_SECURITY,
                "requestBody": {**_json(choose), "required": True},
                "responses": changed,
            }
        },
    }


def _json(schema: Schema) -> Schema:
    return {"content": {"application/json": {"schema": schema}}}
