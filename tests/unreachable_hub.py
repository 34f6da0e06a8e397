"""A Hugging Face hub that refuses connections, or takes them and says nothing, as behind a firewall."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import sys, time
{imports}
import huggingface_hub.hf_api
for _ in sys.stdin:
    started = time.time()
    try: {call}
    except Exception as error:
        print(type(error).__name__, error, error.hint, time.time() - started, sep="|", flush=True)
"""


def what_is_said(imports: str, call: str, cache: Path, seconds: float = 300) -> dict[str, list[str]]:
    """Of a hub that is "refused" and of one that is "silent": the error's kind, text and hint, and after how long.

    In a process of its own, since the hub's client reads its address once, and in one, since imports take longer.
    Raises AssertionError where that does not answer in so many seconds.
    """
    said: dict[str, list[str]] = {}
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PATH": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", CODE.format(imports=imports, call=call)]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(seconds, process.kill)
            watch.start()
            for network in ("refused", "silent"):
                if network == "silent":
                    server.listen()
                print(network, file=process.stdin, flush=True)
                line = process.stdout.readline()
                assert line, f"{call}: no answer of a hub that is {network} within {seconds} s"
                said[network] = line.strip().split("|")
            watch.cancel()
    return said
