"""The BentoML service: `bentoml serve` at the repository's root serves the newest run's choice.

Importing this module loads no model; that happens when the server starts.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")  # BentoML reports usage over the network unless told not to

import bentoml
from bentoml._internal.utils.analytics.usage_stats import do_not_track

from serve.bodies import query_from
from serve.edge import App, Edge
from serve.engine import Engine
from serve.errors import UserError
from serve.limits import Limits, positive
from serve.locate import ENV, find_package
from serve.package import read_serving
from serve.predictor import Predictor
from serve.routes import ROUTES, Routes

do_not_track.cache_clear()  # the `bentoml serve` command asked before it imported this module, and remembers

# Of the latency histogram. BentoML's start at 5 ms, by when a small model has long answered.
_BUCKETS_S = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]


def _settings() -> dict[str, Any]:
    """What BentoML is told of this service; `bentoml serve`'s own options go before it."""
    contained = "BENTOML_CONTAINERIZED" in os.environ  # there, loopback would be reached by nobody
    return {
        "workers": _workers(),
        "http": {"host": "0.0.0.0" if contained else "127.0.0.1", "port": 3000},
        "traffic": {"timeout": LIMITS.request_seconds, "max_concurrency": LIMITS.max_concurrency},
        "metrics": {"duration": {"buckets": _BUCKETS_S}},
        # Tracing and a line for each request cost as much time as a small model; the metrics count requests anyway.
        "tracing": {"excluded_urls": ".*"},
        "logging": {"access": {"enabled": bool(os.environ.get("LIMBECK_ACCESS_LOG"))}},
    }


def _workers() -> int:
    """Worker processes: LIMBECK_WORKERS, else what the package's serving.json says."""
    if text := os.environ.get("LIMBECK_WORKERS"):
        return positive("LIMBECK_WORKERS", text)
    try:
        return read_serving(find_package()).workers
    except UserError:  # nothing to serve yet: `bentoml build` imports this too
        return 1


def _exit(error: UserError) -> NoReturn:
    print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
    raise SystemExit(2)


class _EdgedService(bentoml.Service):
    """A service whose application is wrapped by the Edge, outside of BentoML's own layers."""

    def to_asgi(self, is_main: bool = True) -> App:
        return Edge(super().to_asgi(is_main), ROUTES)


try:
    LIMITS = Limits.from_env()
    _SETTINGS = _settings()
except UserError as error:
    _exit(error)

_STATE: dict[str, Any] = {}  # what the instance tells the middleware: "engine", once the model is loaded


@bentoml.service(service_class=_EdgedService, **_SETTINGS)
class Classifier:
    """Classifies images or texts; see GET /model and /openapi.json."""

    def __init__(self) -> None:
        self.engine = Engine(Predictor.load(find_package()), LIMITS)
        self.engine.warm_up()
        _STATE["engine"] = self.engine

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Once, before the first worker: refuse what cannot be served, and have all workers serve the same package."""
        try:
            package = find_package()
            Predictor.load(package)
        except UserError as error:
            _exit(error)
        os.environ[ENV] = str(package)

    @bentoml.on_shutdown
    def close(self) -> None:
        self.engine.close()

    @bentoml.api
    def predict(self, inputs: list[str], top_k: int | None = None) -> dict[str, Any]:
        """Classify texts, or images as base64, whichever the model takes (GET /model says it)."""
        # Describes /predict to BentoML's clients; over HTTP, Routes answers it.
        return self.engine.answer(query_from({"inputs": inputs, "top_k": top_k}, LIMITS, self.engine.task))


_service: Any = Classifier  # to a type checker, the decorated class is still the class
_service.add_asgi_middleware(Routes, state=_STATE)
