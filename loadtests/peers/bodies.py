"""What is sent: whole HTTP requests, and the answers that are right, in a file for the generator."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from loadtests.bodies import Request, as_json, as_multipart, as_raw
from loadtests.payloads import PAYLOADS, Item, load_payloads
from loadtests.peers.answer import Model
from loadtests.peers.contenders import Form
from serve.errors import UserError

SIDE, QUALITY = 224, 90  # of the JPEGs, whatever size the model asks for: decoding is the server's work
_ITEMS = 64


def write_requests(model: Model, folder: Path, seed: int = 0) -> dict[Form, Path]:
    """Items of the run's test split as requests: texts one in each; images as 224x224 JPEGs."""
    items = [_enlarged(item) if model.task == "image" else item for item in _drawn(model, seed)]
    right = [model.answer(item.content)["predictions"] for item in items]
    forms: dict[Form, Any] = {"whole": as_json, "form": as_json}
    if model.task == "image":
        forms = {"whole": as_raw, "form": as_multipart}
    files = {}
    for form, make in forms.items():
        content = [
            {"request": base64.b64encode(whole(make([item]))).decode(), "predictions": predictions}
            for item, predictions in zip(items, right, strict=True)
        ]
        files[form] = folder / f"{form}.json"
        files[form].write_text(json.dumps(content), encoding="utf-8")
    return files


def whole(request: Request) -> bytes:
    """A request with its head, as it goes over the wire."""
    # BentoML looks for a file's type; "application/octet-stream" would do for all others.
    kind = "image/jpeg" if request.name.startswith("raw") else request.content_type
    head = f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(request.body)}"
    return head.encode() + b"\r\n\r\n" + request.body


def _drawn(model: Model, seed: int) -> list[Item]:
    file = model.predictor.package.path.parent.parent / PAYLOADS
    if not file.is_file():
        raise UserError(
            f"{file} is not there: there is nothing to send", "name a package in a run's folder, or a completed run"
        )
    items = load_payloads(file).items
    return random.Random(seed).sample(items, min(_ITEMS, len(items)))


def _enlarged(item: Item) -> Item:
    image = Image.open(io.BytesIO(item.content)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return Item("", content.getvalue(), item.label, item.score)
