"""The page at `/`, on which a person tries the models, and the report beside a model's package.

    LIMBECK_PLAYGROUND=off    neither of them has an address

The page is read once and answered from memory. It loads nothing from elsewhere, holds nothing secret (what it shows it
asks the server for, with the visitor's token where one is needed), and never reaches BentoML and its metrics.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serve.errors import RequestError, UserError
from serve.locate import PACKAGES, REPORT

if TYPE_CHECKING:
    from serve.edge import Exchange, Scope

ENV = "LIMBECK_PLAYGROUND"
FOLDER = Path(__file__).resolve().parent / "page"
_INDEX = "index.html"
_FILES = ("page.css", "main.js", "server.js", "inputs.js", "answer.js", "card.js", "dom.js", "icon.svg")
# Every address of the page, and the file behind it.
ADDRESSES = {"/": _INDEX, **{f"/playground/{name}": name for name in _FILES}}
REPORT_ADDRESS = "/report"

_KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_PAGE = "report.html"
_MAX_REPORT_BYTES = 32 * 1024 * 1024
_PIECE = 64 * 1024  # handed to the web server at once, so that a slow reader holds no more of it


class Asset(NamedTuple):
    """What an address answers with."""

    body: bytes
    kind: bytes
    tag: bytes  # changes with the body


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the page and the reports are served. Raises UserError for what is neither on nor off."""
    text = environ.get(ENV, "").strip().lower()
    if text not in ("", "on", "1", "off", "0"):
        raise UserError(f"{ENV} is {environ[ENV]!r}, expected on or off", f"unset {ENV}: it is on by default")
    return text not in ("off", "0")


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """The page's files by their addresses."""
    return {address: _asset((FOLDER / name).read_bytes(), name) for address, name in ADDRESSES.items()}


def report_of(package: Path) -> Path | None:
    """The report.html of the run that the package at `package` lies in, or None. Only ever that one file."""
    run = package.parent.parent
    page = run / _PAGE
    if package.parent.name != PACKAGES or not (run / REPORT).is_file():
        return None
    return page if page.is_file() and not page.is_symlink() else None


async def send_page(exchange: Exchange, scope: Scope) -> None:
    """Answer with the file of the page that stands for the request's path."""
    await _send(exchange, scope, assets()[scope["path"]])


async def send_report(exchange: Exchange, scope: Scope, package: Path) -> None:
    """Answer with the report beside a package. Raises RequestError 404 where there is none."""
    page = report_of(package)
    report = None if page is None else await asyncio.to_thread(_read, page)
    if report is None:
        hint = "a report stands in the folder of a run; a package that was copied elsewhere has left it there"
        raise RequestError(404, "no_report", "there is no report beside this model", hint)
    await _send(exchange, scope, report)


def _asset(body: bytes, name: str) -> Asset:
    tag = b'"' + hashlib.sha256(body).hexdigest()[:20].encode() + b'"'
    return Asset(body, _KINDS[Path(name).suffix], tag)


def _read(page: Path) -> Asset | None:
    try:
        status = page.stat()
        if status.st_size > _MAX_REPORT_BYTES:
            return None
        return _kept(page, status.st_mtime_ns, status.st_size)
    except OSError:  # it went meanwhile
        return None


@lru_cache(maxsize=2)
def _kept(page: Path, changed_ns: int, size: int) -> Asset:
    """One copy for all who read it. `changed_ns` and `size` are those of the file now."""
    return _asset(page.read_bytes(), page.name)


async def _send(exchange: Exchange, scope: Scope, asset: Asset) -> None:
    """The whole of it, or 304 to a browser that has it."""
    headers = [(b"etag", asset.tag)]
    if _has(scope, asset.tag):
        await exchange.relay({"type": "http.response.start", "status": 304, "headers": headers})
        await exchange.relay({"type": "http.response.body", "body": b""})
        return
    headers += [(b"content-type", asset.kind), (b"content-length", str(len(asset.body)).encode())]
    await exchange.relay({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else asset.body
    pieces = [body[begin : begin + _PIECE] for begin in range(0, len(body), _PIECE)] or [b""]
    for piece in pieces[:-1]:
        await exchange.relay({"type": "http.response.body", "body": piece, "more_body": True})
    await exchange.relay({"type": "http.response.body", "body": pieces[-1]})


def _has(scope: Scope, tag: bytes) -> bool:
    """Whether If-None-Match names the tag (RFC 9110, 13.1.2)."""
    given = [value for name, value in scope["headers"] if name == b"if-none-match"]
    known = [each.strip().removeprefix(b"W/") for value in given for each in value.split(b",")]
    return tag in known or b"*" in known
