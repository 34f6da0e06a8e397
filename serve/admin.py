"""Admin requests: what is served is changed while the server runs, by who has the admin token.

    GET    /admin/models          what is served, and where it came from
    PUT    /admin/models/NAME     {} reads it again; {"package": FOLDER} takes it from the folder of models
    DELETE /admin/models/NAME     is served no longer
    PUT    /admin/default         {"model": NAME} answers what names no model

A change is answered when all workers serve it (200), or with 202 when some have yet to change over; where one of them
cannot load it nothing changes anywhere (409).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from serve.bodies import read_body
from serve.catalog import is_name
from serve.control import Control
from serve.edge import Exchange, Receive, Scope
from serve.errors import RequestError, UserError, did_you_mean
from serve.limits import Limits
from serve.logs import log
from serve.rollout import Outcome, Rollout

_MODELS, _DEFAULT = "/admin/models", "/admin/default"


def admin_methods(path: str) -> tuple[str, ...] | None:
    """The methods that an admin address takes; None: there is no such address."""
    if path == _MODELS:
        return ("GET", "HEAD")
    if path == _DEFAULT:
        return ("PUT",)
    return ("PUT", "DELETE") if is_name(_name(path)) else None


class Admin:
    """Answers the requests to `admin_methods`' addresses."""

    def __init__(self, control: Control, rollout: Rollout, limits: Limits) -> None:
        self._control = control
        self._rollout = rollout
        self._limits = limits

    async def __call__(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Raises RequestError."""
        headers = dict(scope["headers"])
        if not self._control.admits(headers.get(b"authorization", b"")):
            message, hint = "this needs the admin token", "send it as `Authorization: Bearer TOKEN`"
            raise RequestError(401, "unauthorized", message, hint, [(b"www-authenticate", b"Bearer")])
        body = await read_body(receive, headers, self._limits)
        path, method = scope["path"], scope["method"]
        if path == _MODELS:
            await exchange.answer(json.dumps(_listed(self._rollout.progress())).encode())
            return
        try:
            outcome = await asyncio.to_thread(self._change, path, method, body)
        except RequestError as error:
            log.warning("admin request %s %s is refused: %s", method, path, error.message)
            raise
        served = " ".join(f"{name}={copy.id}" for name, copy in sorted(outcome.selection.models.items()))
        log.info(
            "admin request %s %s: %s of %s workers serve %s", method, path, outcome.following, outcome.workers, served
        )
        status = 200 if outcome.following == outcome.workers else 202
        await exchange.answer(json.dumps(_listed(outcome)).encode(), status)

    def _change(self, path: str, method: str, body: bytes) -> Outcome:
        try:
            if path == _DEFAULT:
                name = _field(body, "model")
                if name is None:
                    raise RequestError(422, "bad_json", "`model` is missing", 'expected {"model": "NAME"}')
                self._check_served(name)
                return self._rollout.set_default(name)
            name = _name(path)
            if method == "DELETE":
                self._check_served(name)
                return self._rollout.unload(name)
            folder = _field(body, "package")
            if folder is None:
                self._check_served(name)
            return self._rollout.load(name, folder)
        except UserError as error:
            raise RequestError(409, "not_changed", error.message, error.hint) from None

    def _check_served(self, name: str) -> None:
        models = self._rollout.selection.models
        if name not in models:
            hint = did_you_mean(name[:64], models)
            raise RequestError(404, "unknown_model", "no model is served under this name", hint)


def _name(path: str) -> str:
    return path.removeprefix(f"{_MODELS}/") if path.startswith(f"{_MODELS}/") else ""


def _listed(outcome: Outcome) -> dict[str, Any]:
    selection = outcome.selection
    models = [
        {"name": name, "id": copy.id, "source": copy.target, "default": name == selection.default}
        for name, copy in sorted(selection.models.items())
    ]
    workers = {"changed": outcome.following, "of": outcome.workers}
    return {"default": selection.default, "models": models, "workers": workers}


def _field(body: bytes, key: str) -> str | None:
    """The one string that a body may hold, which may also be empty. Raises RequestError."""
    expected = f'expected {{"{key}": "NAME"}}'
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise RequestError(400, "bad_json", "the body is not JSON", expected) from None
    if not isinstance(content, Mapping) or set(content) - {key}:
        raise RequestError(422, "bad_json", "the body is not an object with that key alone", expected)
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise RequestError(422, "bad_json", f"`{key}` is not a string", expected)
    return value
