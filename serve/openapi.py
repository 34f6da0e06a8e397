"""The OpenAPI document of the server, from the model and the limits in force."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_STATUS = {
    "400": "The body is malformed or incomplete",
    "404": "There is nothing at this address",
    "408": "The body came too slowly",
    "413": "The body, the number of inputs or an image is over a limit",
    "415": "The Content-Type is not one of those named here",
    "422": "The request is well formed, but not what is expected, or no input can be read",
    "429": "The server has as many requests as it takes at once",
    "500": "The server failed",
    "503": "The server is not ready",
    "504": "The answer was not ready in time",
}
_REQUEST_ID = {
    "description": "The request's X-Request-ID if it had a well-formed one, else one made here",
    "schema": {"type": "string"},
}


def document(model: dict[str, Any]) -> Schema:
    """The OpenAPI 3.1 document for a server whose GET /model answers `model`."""
    classify = {"requestBody": _request_body(model), "responses": _responses("Classification", _CLASSIFY_ERRORS)}
    top_k = {
        "name": "top_k",
        "in": "query",
        "description": "Only with a raw image as body; the other bodies have a field of that name",
        "schema": _top_k(model),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Limbeck: {model['name']}",
            "version": model["id"],
            "description": "Classifies images. `version` is the id of the model, which names exactly one behaviour.",
        },
        "paths": {
            "/classify": {
                "post": {
                    "operationId": "classify",
                    "summary": "Classify one image or several, in the order in which they were sent",
                    "parameters": [top_k],
                    **classify,
                }
            },
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "The same under the name that BentoML's clients call",
                    "parameters": [top_k],
                    **classify,
                }
            },
            "/model": {"get": _get("The model that answers, and the limits in force", "Model")},
            "/openapi.json": {"get": _get("This document", None)},
            "/schema.json": {"get": _get("BentoML's description of `predict`, for its own clients", None)},
            "/docs.json": {"get": _get("BentoML's description of `predict`, for its page", None)},
            "/livez": {"get": _probe("The process answers")},
            "/healthz": {"get": _probe("The same as /livez")},
            "/readyz": {"get": _probe("The model is loaded and has answered once")},
            "/metrics": {"get": _probe("Counters and latencies in Prometheus' text format")},
            "/": {"get": _page("A page to try the server")},
            "/static_content/{file}": {"get": {**_page("What it is made of", "404"), "parameters": [_FILE]}},
        },
        "components": {
            "schemas": {**_SCHEMAS, "Label": {"type": "string", "enum": model["labels"]}},
            "responses": {status: _error_response(text) for status, text in _STATUS.items()},
            "headers": {"X-Request-ID": _REQUEST_ID},
        },
    }


def _request_body(model: dict[str, Any]) -> Schema:
    limits, top_k = model["limits"], _top_k(model)
    inputs = {"type": "array", "minItems": 1, "maxItems": limits["max_items"]}
    encoded = {"type": "string", "contentEncoding": "base64", "description": "An image file, never a path or a URL"}
    json_body = _object({"inputs": {**inputs, "items": encoded}, "top_k": {**top_k, "type": ["integer", "null"]}})
    form = _object({"files": {**inputs, "items": {"type": "string", "format": "binary"}}, "top_k": top_k})
    return {
        "required": True,
        "description": (
            f"At most {limits['max_body_bytes']} bytes and {limits['max_items']} images, "
            f"each of at most {limits['max_pixels']} pixels, as PNG, JPEG, WebP, BMP or GIF."
        ),
        "content": {
            "application/json": {"schema": {**json_body, "required": ["inputs"]}},
            "multipart/form-data": {"schema": {**form, "required": ["files"]}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }


def _top_k(model: dict[str, Any]) -> Schema:
    return {
        "type": "integer",
        "minimum": 1,
        "maximum": model["limits"]["max_top_k"],
        "default": model["default_top_k"],
        "description": "How many labels to name for each image, best first",
    }


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


_CLASSIFY_ERRORS = ("400", "408", "413", "415", "422", "429", "500", "504")
_GET_ERRORS = ("429", "500", "504")


def _responses(schema: str | None, errors: tuple[str, ...], media_type: str = "application/json") -> Schema:
    content = {media_type: {"schema": _ref("schemas", schema) if schema else {"type": "object"}}}
    answer = {"description": "The answer", "headers": _ID_HEADER, "content": content}
    return {"200": answer, **{status: _ref("responses", status) for status in errors}}


def _get(summary: str, schema: str | None) -> Schema:
    return {"summary": summary, "responses": _responses(schema, _GET_ERRORS)}


def _probe(summary: str) -> Schema:
    return {"summary": summary, "responses": _responses("Text", ("500", "503", "504"), "text/plain")}


def _page(summary: str, *errors: str) -> Schema:
    return {"summary": summary, "responses": _responses("Text", (*_GET_ERRORS, *errors), "text/*")}


def _error_response(description: str) -> Schema:
    content = {"application/json": {"schema": _ref("schemas", "Error")}}
    return {"description": description, "headers": _ID_HEADER, "content": content}


_FILE = {"name": "file", "in": "path", "required": True, "schema": {"type": "string"}}
_ID_HEADER = {"X-Request-ID": _ref("headers", "X-Request-ID")}
_TEXT = {"type": "string"}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_NAMED = {"label": _ref("schemas", "Label"), "score": _SCORE}
_PROBLEM = {"code": _TEXT, "message": _TEXT, "hint": _TEXT}
_SCHEMAS: Schema = {
    "Text": _TEXT,
    "Error": _object({"error": _object({**_PROBLEM, "request_id": _TEXT})}),
    "Classification": _object(
        {
            "model": _object({"id": _TEXT, "name": _TEXT}),
            "predictions": {
                "type": "array",
                "description": "One for each input, in order; an input that cannot be read has an error in its place",
                "items": {
                    "oneOf": [
                        _object({**_NAMED, "top_k": {"type": "array", "minItems": 1, "items": _object(_NAMED)}}),
                        _object({"error": _object(_PROBLEM)}),
                    ]
                },
            },
        }
    ),
    "Model": _object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "task": _TEXT,
            "labels": {"type": "array", "items": _ref("schemas", "Label")},
            "preprocessing": {"type": "object"},
            "precision": _TEXT,
            "batch_invariant": {"type": "boolean"},
            "temperature": {"type": "number"},
            "metrics": {"type": "object", "description": "What the run measured of this model"},
            "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
            "default_top_k": {"type": "integer"},
        }
    ),
}
