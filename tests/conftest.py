from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Iterator

import pytest

# Before anything imports Triton: tests of kernels run in its interpreter. Elsewhere CPU tensors take the references.
os.environ.setdefault("TRITON_INTERPRET", "1")

from helpers import SERVER_LIMITS, Served, tiny_package, tiny_text_package
from tiny_run import Ran, content, run_once

from serve.launch import start
from serve.package import Package
from serve.predictor import Predictor

WORKER = "PYTEST_XDIST_WORKER"  # set where pytest runs in several processes


def pytest_collection_finish() -> None:
    """What was imported stays to the end: no collection of garbage, and a run makes some, need look at it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny image model behind a real `bentoml serve` process, for the whole session."""
    with _served(tiny_package(tmp_path_factory.mktemp("served") / "package")) as server:
        yield server


@pytest.fixture(scope="session")
def served_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny text model likewise."""
    with _served(tiny_text_package(tmp_path_factory.mktemp("served_text") / "package")) as server:
        yield server


@contextlib.contextmanager
def _served(package: Package) -> Iterator[Served]:
    with contextlib.ExitStack() as serving:
        with pytest.MonkeyPatch.context() as environment:  # not for longer: other tests' servers have other limits
            for name, value in SERVER_LIMITS.items():
                environment.setenv(name, value)
            server = serving.enter_context(start(package.path))
        yield Served(server.url, server.port, server.log, Predictor(package), server.pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The tiny recipe, run once and undisturbed. Look at it, change only copies of it."""
    own = tmp_path_factory.getbasetemp()  # of several processes, each has its own in one that they share
    common = own.parent if WORKER in os.environ else own
    return run_once(content(), common / "tiny", tmp_path_factory.mktemp("tiny") / "run")
