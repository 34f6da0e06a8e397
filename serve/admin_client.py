"""Admin requests to a running server, for the command line."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from serve.catalog import is_name
from serve.control import read_token
from serve.errors import UserError, said

_TIMEOUT_S = 90.0  # more than a server waits for its workers to load a model


def load_model(url: str, name: str, package: str | None = None) -> dict[str, Any]:
    """Have the server at `url` load `name` (again). Returns its answer; raises UserError where it refuses."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url!r} is no address of a server", "expected for example http://127.0.0.1:3000")
    if not is_name(name):
        raise UserError(f"{name!r} is no name of a model", "GET /models lists them")
    request = urllib.request.Request(
        f"{url.rstrip('/')}/admin/models/{name}",
        data=json.dumps({} if package is None else {"package": package}).encode(),
        headers={"Authorization": f"Bearer {read_token()}", "Content-Type": "application/json"},
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{url} does not answer: {said(error)}", "start it with `limbeck serve`, or name another with --url"
        ) from None
    return answer


def _refusal(url: str, error: urllib.error.HTTPError) -> UserError:
    try:
        problem = json.load(error)["error"]
        message, hint = str(problem["message"]), str(problem["hint"])
    except (ValueError, KeyError, TypeError):
        message, hint = f"HTTP status {error.code}", "is this a server of limbeck?"
    if error.code == 404 and "address" in message:
        hint = "the server was started without an admin token, and so takes no admin requests"
    return UserError(f"{url}: {message}", hint)
