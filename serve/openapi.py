"""The OpenAPI document of the server, from the model and the limits in force."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from serve.playground import ADDRESSES as PAGE
from serve.tokens import ADMIN, HEALTH

Schema = dict[str, Any]

_STATUS = {
    "400": "The body is malformed or incomplete",
    "404": "There is nothing at this address, or not for this model",
    "408": "The body came too slowly",
    "413": "The body, the number of inputs or an input is over a limit",
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
    classify = {
        **({"parameters": [_raw_top_k(model)]} if model["task"] == "image" else {}),
        "requestBody": _request_body(model),
        "responses": responses("Classification", _CLASSIFY_ERRORS),
    }
    noun = model["task"]
    notes = {**_NOTES[noun], **({} if model["abstain_below"] is None else {"abstained": _DOUBT})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Limbeck: {model['name']}",
            "version": model["id"],
            "description": f"Classifies {noun}s. `version` is the id of the model, which names exactly one behaviour.",
        },
        "paths": {
            "/classify": {
                "post": {
                    "operationId": "classify",
                    "summary": f"Classify one {noun} or several, in the order in which they were sent",
                    **classify,
                }
            },
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "The same under the name that BentoML's clients call",
                    **classify,
                }
            },
            "/model": {"get": _get("The model that answers, and the limits in force", "Model")},
            "/openapi.json": {"get": _get("This document", None)},
            "/schema.json": {"get": _get("BentoML's description of `predict`, for its own clients", None)},
            "/livez": {"get": _probe("The process answers")},
            "/healthz": {"get": _probe("The same as /livez")},
            "/readyz": {"get": _probe("The model is loaded and has answered once")},
            "/metrics": {"get": _probe("Counters and latencies in Prometheus' text format")},
        },
        "components": {
            "schemas": {
                **_SCHEMAS,
                "Label": {"type": "string", "enum": model["labels"]},
                "Prediction": to_object({**_NAMED, "top_k": _TOP, **notes}, optional=notes),
            },
            "responses": {status: error_response(text) for status, text in _STATUS.items()},
            "headers": {"X-Request-ID": _REQUEST_ID},
        },
    }


def secured(content: Schema) -> Schema:
    """The document of a server that asks for bearer tokens."""
    components = content["components"]
    responses = {**components["responses"], "401": error_response("There is no token, or not one of this server's")}
    schemes = {**components.get("securitySchemes", {}), "token": {"type": "http", "scheme": "bearer"}}
    paths = {
        path: operations
        if path.startswith(ADMIN)
        else {method: _secured(path, one) for method, one in operations.items()}
        for path, operations in content["paths"].items()
    }
    return {
        **content,
        "paths": paths,
        "security": [{"token": []}],
        "components": {**components, "responses": responses, "securitySchemes": schemes},
    }


def _secured(path: str, operation: Schema) -> Schema:
    if path in HEALTH or path in PAGE:
        return {**operation, "security": []}
    return {**operation, "responses": {**operation["responses"], "401": to_ref("responses", "401")}}


def _request_body(model: dict[str, Any]) -> Schema:
    limits = model["limits"]
    size = f"At most {limits['max_body_bytes']} bytes and {limits['max_items']}"
    if model["task"] == "text":
        cut = f"{model['preprocessing']['max_length']} tokens"
        description = (
            f"{size} texts, each of at most {limits['max_text_chars']} characters; what is over {cut} is cut off."
        )
        return {"required": True, "description": description, "content": _text_content(model)}
    pixels = f"each of at most {limits['max_pixels']} pixels, as PNG, JPEG, WebP, BMP or GIF."
    return {"required": True, "description": f"{size} images, {pixels}", "content": _image_content(model)}


def _text_content(model: dict[str, Any]) -> Schema:
    visible = r"[^\s\u001c-\u001f\u0085]"  # what Python takes for blank, and the pattern's \s alone does not
    text = {"type": "string", "maxLength": model["limits"]["max_text_chars"], "pattern": visible}
    example = {"inputs": ["a text", "another text"], "top_k": model["default_top_k"]}
    return {"application/json": {"schema": _json_body(model, text), "example": example}}


def _image_content(model: dict[str, Any]) -> Schema:
    encoded = {"type": "string", "contentEncoding": "base64", "description": "An image file, never a path or a URL"}
    binary = {"type": "string", "format": "binary"}
    form = to_object({"files": _inputs(model, binary), "top_k": _top_k(model)}, optional=("top_k",))
    return {
        "application/json": {"schema": _json_body(model, encoded)},
        "multipart/form-data": {"schema": form},
        "image/*": {"schema": binary},
        "application/octet-stream": {"schema": binary},
    }


def _json_body(model: dict[str, Any], item: Schema) -> Schema:
    top_k = {**_top_k(model), "type": ["integer", "null"]}
    return to_object({"inputs": _inputs(model, item), "top_k": top_k}, optional=("top_k",))


def _inputs(model: dict[str, Any], item: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": model["limits"]["max_items"], "items": item}


def _raw_top_k(model: dict[str, Any]) -> Schema:
    description = "Only with a raw image as body; the other bodies have a field of that name"
    return {"name": "top_k", "in": "query", "description": description, "schema": _top_k(model)}


def _top_k(model: dict[str, Any]) -> Schema:
    return {
        "type": "integer",
        "minimum": 1,
        "maximum": model["limits"]["max_top_k"],
        "default": model["default_top_k"],
        "description": "How many labels to name for each input, best first",
    }


def to_object(properties: Schema, optional: Collection[str] = ()) -> Schema:
    """An object with these keys and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def to_ref(kind: str, name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


_CLASSIFY_ERRORS = ("400", "408", "413", "415", "422", "429", "500", "504")
_GET_ERRORS = ("429", "500", "504")


def responses(schema: str | None, errors: tuple[str, ...], media_type: str = "application/json") -> Schema:
    """The answer, by the name of its schema (None: any object), and these errors."""
    content = {media_type: {"schema": to_ref("schemas", schema) if schema else {"type": "object"}}}
    answer = {"description": "The answer", "headers": _ID_HEADER, "content": content}
    return {"200": answer, **{status: to_ref("responses", status) for status in errors}}


def _get(summary: str, schema: str | None) -> Schema:
    return {"summary": summary, "responses": responses(schema, _GET_ERRORS)}


def _probe(summary: str) -> Schema:
    return {"summary": summary, "responses": responses("Text", ("500", "503", "504"), "text/plain")}


def file_operation(summary: str, media_type: str, *errors: str) -> Schema:
    """Of an address that answers with a file, which a browser may keep."""
    answers = responses("Text", ("500", *errors), media_type)
    answers["304"] = {"description": "If-None-Match names what is there", "headers": _ID_HEADER}
    return {"summary": summary, "responses": answers}


def error_response(description: str) -> Schema:
    """A response with an error in the one form."""
    content = {"application/json": {"schema": to_ref("schemas", "Error")}}
    return {"description": description, "headers": _ID_HEADER, "content": content}


_ID_HEADER = {"X-Request-ID": to_ref("headers", "X-Request-ID")}
_TEXT = {"type": "string"}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_NAMED = {"label": to_ref("schemas", "Label"), "score": _SCORE}
_TOP = {"type": "array", "minItems": 1, "items": to_object(_NAMED)}
_CUT = {"const": True, "description": "The text has more tokens than the model takes, and was cut"}
_DOUBT = {"const": True, "description": "The best score is below abstain_below of GET /model: better ask a person"}
_NOTES: dict[str, Schema] = {"image": {}, "text": {"truncated": _CUT}}  # what a prediction may carry besides
_PROBLEM = {"code": _TEXT, "message": _TEXT, "hint": _TEXT}
_SCHEMAS: Schema = {
    "Text": _TEXT,
    "Error": to_object({"error": to_object({**_PROBLEM, "request_id": _TEXT})}),
    "Classification": to_object(
        {
            "model": to_object({"id": _TEXT, "name": _TEXT}),
            "predictions": {
                "type": "array",
                "description": "One for each input, in order; an input that cannot be read has an error in its place",
                "items": {"oneOf": [to_ref("schemas", "Prediction"), to_object({"error": to_object(_PROBLEM)})]},
            },
        }
    ),
    "Model": to_object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "task": _TEXT,
            "send": {"type": "object", "description": "Each Content-Type of /classify, and what the body then is"},
            "labels": {"type": "array", "items": to_ref("schemas", "Label")},
            "preprocessing": {"type": "object"},
            "precision": _TEXT,
            "batch_invariant": {"type": "boolean"},
            "temperature": {"type": "number"},
            "abstain_below": {"type": ["number", "null"], "description": "Predictions with a lower score are marked"},
            "size_bytes": {"type": "integer", "description": "Of the files that decide an answer"},
            "metrics": {"type": "object", "description": "What the run measured of this model"},
            "expected": {
                "type": "object",
                "description": "Share of the test split's inputs that the model gives each label",
                "additionalProperties": _SCORE,
            },
            "report": {"type": "boolean", "description": "Whether there is a report at /report beside it"},
            "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
            "default_top_k": {"type": "integer"},
        }
    ),
}
