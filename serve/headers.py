"""Headers that every answer carries, whichever layer gives it, and the id under which a request is spoken of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from serve.playground import ADDRESSES, REPORT_ADDRESS

Headers = list[tuple[bytes, bytes]]

_ids = random.Random()  # seeded by the system; an id tells requests apart and guards nothing
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")  # short, and nothing that could break out of a log line

# What a browser may do with an answer that it was led to: nothing (OWASP, REST Security Cheat Sheet).
_NOT_SNIFFED = (b"x-content-type-options", b"nosniff")
_NOT_KEPT = (b"cache-control", b"no-store")
_DATA_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_ASKED_AGAIN = (
    b"cache-control",
    b"private, no-cache",
)  # kept, and used only after the server has said that it still holds
# Files of our own and the visitor's image, no text of the page's that would be run: not even markup made from strings.
_PAGE_POLICY = (
    b"content-security-policy",
    (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
)
# A report is one file with all in it. In a sandbox it is of no origin, so that nothing in it could ask this server.
_REPORT_POLICY = (
    b"content-security-policy",
    (
        b"sandbox allow-scripts allow-popups allow-modals; default-src 'none'; script-src 'unsafe-inline'; "
        b"style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'"
    ),
)
_OF_WINDOWS: Headers = [
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]

_OF_DATA: Headers = [_NOT_SNIFFED, _NOT_KEPT, _DATA_POLICY]
_OF_PAGE: Headers = [_NOT_SNIFFED, _ASKED_AGAIN, _PAGE_POLICY, *_OF_WINDOWS]
_OF_REPORT: Headers = [_NOT_SNIFFED, _ASKED_AGAIN, _REPORT_POLICY, *_OF_WINDOWS]


def security_headers(path: str) -> Headers:
    """The security headers of an answer at `path`."""
    if path in ADDRESSES:
        return _OF_PAGE
    return _OF_REPORT if path.endswith(REPORT_ADDRESS) else _OF_DATA


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The X-Request-ID of a request if it has a well-formed one, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return b"%016x" % _ids.getrandbits(64)
