"""The BentoML service: `bentoml serve` at the repository's root serves the newest run's choice.

Importing this module loads no model; that happens when the server starts.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any, NoReturn

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # BentoML reports usage over the network unless told not to

import bentoml
import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils.analytics.usage_stats import do_not_track

from serve import playground
from serve.bodies import query_from
from serve.control import Control
from serve.door import Door
from serve.edge import App, Edge
from serve.errors import UserError
from serve.express import Express
from serve.gate import Gate
from serve.limits import Limits, asked_workers, drain_seconds
from serve.locate import find_package
from serve.logs import log_format, set_up
from serve.memory import give_back_large_buffers
from serve.metrics import instruments
from serve.models import Models, check_models
from serve.package import read_serving
from serve.protocol import install
from serve.routes import Addresses, Routes
from serve.tally import InFlight
from serve.tokens import Tokens, exposure
from serve.worker import Worker

do_not_track.cache_clear()  # the `bentoml serve` command asked before it imported this module, and remembers


def _settings() -> dict[str, Any]:
    """What BentoML is told of this service; `bentoml serve`'s own options go before it."""
    contained = "BENTOML_CONTAINERIZED" in os.environ  # there, loopback would be reached by nobody
    return {
        "workers": _workers(),
        "http": {"host": "0.0.0.0" if contained else "127.0.0.1", "port": 3000},
        "traffic": {"timeout": LIMITS.request_seconds},
        "tracing": {"excluded_urls": ".*"},
        "logging": {"access": {"enabled": False}},  # what passes BentoML are health checks
    }


def _workers() -> int:
    """Worker processes: LIMBECK_WORKERS, else what the package's serving.json says."""
    if asked := asked_workers():
        return asked
    try:
        return read_serving(find_package()).workers
    except UserError:  # nothing to serve yet: `bentoml build` imports this too
        return 1


def _host() -> str:
    """The address that the server being started will listen on: of the command line, else of the configuration."""
    command = click.get_current_context(silent=True)
    given = command.params.get("host") if command else None
    return str(given or BentoMLContainer.http.host.get())


def _exit(error: UserError) -> NoReturn:
    print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
    raise SystemExit(2)


class _EdgedService(bentoml.Service):
    """A service whose application is wrapped by the Edge, outside of BentoML's own layers."""

    def to_asgi(self, is_main: bool = True) -> App:
        give_back_large_buffers()
        access_log = bool(os.environ.get("LIMBECK_ACCESS_LOG"))
        routes = Routes(super().to_asgi(is_main), _STATE, access_log, _PAGE)
        worker = Worker(Edge(routes, Addresses(_ADMIN, _PAGE), TOKENS), _DRAIN_S)
        door = Door(_STATE, routes.tally, TOKENS, access_log, lambda: worker.letting_go)
        install(LIMITS, door, Express(_STATE, door, routes.tally, access_log))  # the worker is about to start uvicorn
        return worker


try:
    LIMITS = Limits.from_env()
    LOG_FORMAT = log_format()
    TOKENS = Tokens.from_env()
    _SETTINGS = _settings()
    _DRAIN_S = drain_seconds()
    _PAGE = playground.wanted()
    _ADMIN = Control.from_env().token_hash is not None
except UserError as error:
    _exit(error)

# What the instance tells the routes: more of it once the models are loaded.
_STATE: dict[str, Any] = {"secured": TOKENS is not None}


@bentoml.service(service_class=_EdgedService, **_SETTINGS)
class Classifier:
    """Classifies images or texts; see GET /model and /openapi.json."""

    def __init__(self) -> None:
        self.models = Models(LIMITS, lambda engine: set_up(LOG_FORMAT, engine.model_id))
        capacity = math.ceil(LIMITS.max_concurrency / _workers())
        gate = Gate(capacity, LIMITS.request_seconds, InFlight(instruments().inside.inc).moved)
        _STATE.update(models=self.models.registry, gate=gate)
        if self.models.admin is not None:
            _STATE["admin"] = self.models.admin
        self.models.start()

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Once, before the first worker: refuse what cannot be served, and have all workers serve the same package."""
        try:
            check_models()
        except UserError as error:
            _exit(error)
        for remark in [*exposure(_host(), TOKENS), *(TOKENS.remarks() if TOKENS else [])]:
            print(f"warning: {remark}", file=sys.stderr)
        from serve.supervise import supervise  # the process manager, which no worker needs

        supervise()

    @bentoml.on_shutdown
    def close(self) -> None:
        self.models.close()

    @bentoml.api
    def predict(self, inputs: list[str], top_k: int | None = None) -> dict[str, Any]:
        """Classify texts, or images as base64, whichever the model takes (GET /model says it)."""
        # Describes /predict to BentoML's clients; over HTTP, Routes answers it.
        with self.models.registry.borrow() as engine:
            return engine.answer(query_from({"inputs": inputs, "top_k": top_k}, LIMITS, engine.task))
