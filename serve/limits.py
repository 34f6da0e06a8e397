"""What one request, and all of them together, may ask of the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from serve.errors import UserError

_PREFIX = "LIMBECK_"
DRAIN_SECONDS, WORKERS = "LIMBECK_DRAIN_SECONDS", "LIMBECK_WORKERS"
_DEFAULT_DRAIN_S = 2.0  # behind a load balancer: longer than it takes to look at /readyz until it believes it


@dataclass(frozen=True)
class Limits:
    """Each limit can be set by the environment: `max_items` by LIMBECK_MAX_ITEMS, and so on."""

    max_body_bytes: int = 16 * 1024 * 1024  # counted as the body arrives, whatever its Content-Length says
    max_items: int = 64  # inputs in one request
    max_text_chars: int = 100_000  # of one text, counted before it is tokenized: 0.06 to 1 s of work (2.5 GHz)
    max_concurrency: int = 128  # requests in the server at once, waiting ones included; the next gets 429
    body_seconds: int = 15  # for a body to arrive whole
    # From the first byte of a request to the first of its answer. BentoML keeps a timer for each request so long, also
    # when it is answered: at 700 requests a second, 30 s are 20 MB (2 cores).
    request_seconds: int = 30
    max_queue: int = 1024  # inputs that wait to be batched, in one worker; a request with more of them gets 429
    max_connections: int = 1000  # to one worker; beyond that, the one that has been idle longest ends
    head_seconds: int = 10  # for the headers of a request to arrive, beside BentoML's 5 s between two requests

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Limits:
        """The limits in force. Raises UserError for a value that is not a whole number above 0."""
        names = {field.name: _PREFIX + field.name.upper() for field in fields(cls)}
        return cls(**{name: positive(key, environ[key]) for name, key in names.items() if environ.get(key)})


def asked_workers(environ: Mapping[str, str] = os.environ) -> int | None:
    """The worker processes that LIMBECK_WORKERS asks for; None: as many as the package's serving.json says."""
    text = environ.get(WORKERS)
    return positive(WORKERS, text) if text else None


def positive(name: str, text: str) -> int:
    """`text` as a whole number above 0; UserError otherwise. `name` is where it came from."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"{name} is {text!r}, expected a whole number above 0", f"unset {name} for its default")
    return int(text)


def drain_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """For how long the listener stays open after SIGTERM, in seconds. Raises UserError for what is no such number."""
    text = environ.get(DRAIN_SECONDS, "")
    if not text:
        return _DEFAULT_DRAIN_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 3600:
        hint = f"unset {DRAIN_SECONDS} for {_DEFAULT_DRAIN_S:g} seconds"
        raise UserError(f"{DRAIN_SECONDS} is {text!r}, expected seconds from 0 to 3600", hint)
    return seconds
