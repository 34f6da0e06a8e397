"""Headers that every answer carries, whichever layer gives it, and the id under which a request is spoken of."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")  # short, and nothing that could break out of a log line

# What a browser may do with an answer that it was led to: nothing (OWASP, REST Security Cheat Sheet).
_NOT_SNIFFED = (b"x-content-type-options", b"nosniff")
_NOT_KEPT = (b"cache-control", b"no-store")
_DATA_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# BentoML's page would load a tracker from elsewhere; what is not ours is not loaded.
_PAGE_POLICY = (
    b"content-security-policy",
    b"default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
)
_PAGE_PATHS = ("/", "/static_content/")

_OF_DATA: Headers = [_NOT_SNIFFED, _NOT_KEPT, _DATA_POLICY]
_OF_PAGE: Headers = [_NOT_SNIFFED, _NOT_KEPT, _PAGE_POLICY]


def security_headers(path: str) -> Headers:
    """The security headers of an answer at `path`."""
    return _OF_PAGE if path == "/" or path.startswith(_PAGE_PATHS[1]) else _OF_DATA


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The X-Request-ID of a request if it has a well-formed one, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8).encode()
