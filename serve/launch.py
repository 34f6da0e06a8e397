"""Start the server: in place of this process (`limbeck serve`), or beside it for as long as a block runs."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from serve import catalog, control
from serve.engine import check_servable
from serve.errors import UserError, said
from serve.limits import DRAIN_SECONDS
from serve.locate import ENV
from serve.tokens import ENV as TOKENS
from serve.tokens import ENV_FILE as TOKENS_FILE
from serve.tokens import Tokens

SERVICE = "serve.service:Classifier"
_LOOPBACK = "127.0.0.1"
_DRAIN_S = 30  # for requests in flight when the server is told to end
_LOG_LINES = 15  # of a server that does not start


@dataclass(frozen=True)
class ServerProcess:
    """A server that runs beside this process. `pid` also names its process group."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{_LOOPBACK}:{self.port}"


def launch(
    target: Path | None = None,
    host: str = _LOOPBACK,
    port: int = 3000,
    also: Sequence[str] = (),
    models_dir: Path | None = None,
    watch: bool = False,
) -> NoReturn:
    """Become the server for `target` (as `find_package` understands it): this process is replaced and never returns.

    So a signal to it is a signal to the server, and its exit status the server's. `also` are further packages,
    "NAME=PATH" each; more can be loaded from `models_dir` while it runs, on admin requests or because it is watched.
    Raises UserError before that if a package cannot be served or the address cannot be had.
    """
    more = {control.MODELS_DIR: str(models_dir.resolve())} if models_dir else {}
    environ = _environ(target, also, {**more, **({control.WATCH: "1"} if watch else {})})
    control.Control.from_env(environ)
    _check_address(host, port)
    Tokens.from_env()  # here, so that what is wrong with them is said before a server starts
    command = _command(host, port)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environ)


@contextlib.contextmanager
def start(
    target: Path | None = None, port: int = 0, timeout_s: float = 60, tokens: bool = False
) -> Iterator[ServerProcess]:
    """Serve `target` on loopback while the block runs, on a free port where `port` is 0.

    Entered once the server is ready. It asks for no tokens, whatever the environment names, unless `tokens` says so:
    who measures it has just started it. Raises UserError if the package cannot be served, or the server does not get
    ready within `timeout_s`.
    """
    environ = {name: value for name, value in _environ(target).items() if tokens or name not in (TOKENS, TOKENS_FILE)}
    port = port or _free_port()
    _check_address(_LOOPBACK, port)
    # BentoML empties the metrics folder in its home when it starts: given a home of its own, it spares other servers'.
    with tempfile.TemporaryDirectory(prefix="limbeck-serve-") as home:
        log = Path(home) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(_LOOPBACK, port),
                env={DRAIN_SECONDS: "0", **environ, "BENTOML_HOME": home},  # nobody balances load to it
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = ServerProcess(port, process.pid, log)
        try:
            _await_ready(server, process, timeout_s)
            yield server
        finally:
            _end(process)


def _command(host: str, port: int) -> list[str]:
    home = Path(__file__).resolve().parent.parent  # so that no other `serve` in the working directory is taken for ours
    options = ["--working-dir", str(home), "--host", host, "--port", str(port)]
    options += ["--timeout-graceful-shutdown", str(_DRAIN_S)]
    return [sys.executable, "-m", "bentoml", "serve", SERVICE, *options]


def _environ(target: Path | None, also: Sequence[str] = (), more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server for these packages. Raises UserError if one of them cannot be served."""
    environ = {**os.environ, **(more or {}), "BENTOML_DO_NOT_TRACK": "true"}
    if target is not None:
        environ[ENV] = str(target.resolve())
    environ[catalog.ENV] = ",".join([entry for entry in (environ.get(catalog.ENV), *also) if entry])
    named = catalog.read_catalog(environ)
    for package in named.packages().values():
        check_servable(package)
    default = named.targets.pop(named.default)
    return {
        **environ,
        ENV: str(default),
        catalog.ENV: ",".join(f"{name}={path}" for name, path in named.targets.items()),
    }


def _check_address(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            hint = "end what listens there, or choose another with --port (and --host)"
            raise UserError(f"cannot listen on {host}:{port}: {said(error)}", hint) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(server: ServerProcess, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        if _is_ready(server.port):
            return
        time.sleep(0.05)
    status = process.poll()
    what = f"was not ready after {timeout_s:g} s" if status is None else f"ended with status {status}"
    tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    raise UserError(f"the server {what}", f"its last words:\n{tail}")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_DRAIN_S + 5)
            break
