from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import tiny_package

from serve.launch import start
from serve.predictor import Predictor

# Small enough for a test to reach each within a moment.
SERVER_LIMITS = {
    "LIMBECK_MAX_BODY_BYTES": str(256 * 1024),
    "LIMBECK_MAX_ITEMS": "40",
    "LIMBECK_MAX_CONCURRENCY": "8",
    "LIMBECK_BODY_SECONDS": "2",
}


@dataclass(frozen=True)
class Served:
    """A real server, and the same model at hand."""

    url: str
    port: int
    log: Path
    predictor: Predictor

    @property
    def model_id(self) -> str:
        return self.predictor.package.manifest.id


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny model behind a real `bentoml serve` process, for the whole session."""
    package = tiny_package(tmp_path_factory.mktemp("served") / "package")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SERVER_LIMITS.items():
            environment.setenv(name, value)
        with start(package.path) as server:
            yield Served(server.url, server.port, server.log, Predictor(package))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
