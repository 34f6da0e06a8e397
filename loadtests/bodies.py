"""Requests to `POST /classify` in each form that it takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtests.payloads import Item

_BOUNDARY = "limbeck-8f14e45fceea167a5a36dedd4bea2543"
# For a server that asks for a token.
_AUTHORIZATION = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("LIMBECK_TOKEN")) else {}


@dataclass(frozen=True)
class Request:
    """What is sent, and for which items."""

    name: str  # under which it is counted
    items: list[Item]
    body: bytes
    content_type: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, **_AUTHORIZATION}


def as_json(items: list[Item]) -> Request:
    body = json.dumps({"inputs": [item.text for item in items]}).encode()
    return Request(f"json {len(items)}", items, body, "application/json")


def as_multipart(items: list[Item]) -> Request:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="image"\r\n\r\n'.encode()
    body = b"".join(head + item.content + b"\r\n" for item in items) + f"--{_BOUNDARY}--\r\n".encode()
    return Request(f"multipart {len(items)}", items, body, f"multipart/form-data; boundary={_BOUNDARY}")


def as_raw(items: list[Item]) -> Request:
    """One image as the whole body."""
    return Request("raw 1", items, items[0].content, "application/octet-stream")


# What --body may name: how one item is sent.
SINGLE: Mapping[str, Callable[[list[Item]], Request]] = {"json": as_json, "multipart": as_multipart, "raw": as_raw}
