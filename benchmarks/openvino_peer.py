"""OpenVINO beside us: its own virtual environment, and a child process that computes when it is asked to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serve.errors import UserError

_PACKAGES = ("openvino", "nncf")
_CHILD = Path(__file__).parent / "openvino_child.py"


def environment(folder: Path) -> Path:
    """The Python of a virtual environment in `folder` with OpenVINO and NNCF; made where it is not there yet.

    Raises UserError where it cannot be made.
    """
    python = folder / "bin" / "python"
    if python.exists() and _works(python):
        return python
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise UserError("OpenVINO is left out: no uv to install it with", "`make setup` installs uv into .venv")
    surroundings = {**os.environ, "VIRTUAL_ENV": str(folder), "UV_SYSTEM_CERTS": "true"}
    for command in ([uv, "venv", "-q", str(folder)], [uv, "pip", "install", "-q", *_PACKAGES]):
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"OpenVINO is left out: {reason}", f"this failed: {' '.join(command)}")
    return python


def _works(python: Path) -> bool:
    return subprocess.run([python, "-c", "import openvino, nncf"], capture_output=True, check=False).returncode == 0


class OpenVino:
    """A quantized model in a child process; batch 1, one thread."""

    def __init__(self, python: Path, model: Path, calibration: Sequence[np.ndarray], folder: Path) -> None:
        """Quantizes ids int64 [1, L] each. Raises UserError where the child ends instead of answering."""
        np.savez(folder / "calibration.npz", *calibration)
        command = [str(python), str(_CHILD), str(model), str(folder / "calibration.npz")]
        self._log = (folder / "openvino.log").open("w+")
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.about = self._answer()

    def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Logits float32 [1, K], and the seconds of the call: by the clock, and of the processor."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"ids": ids.tolist()}) + "\n")
        self._child.stdin.flush()
        answer = self._answer()
        return np.array(answer["logits"], dtype=np.float32), answer["wall"], answer["cpu"]

    def close(self) -> None:
        """End the child."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(timeout=60)
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            reason = (self._log.read().strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"OpenVINO is left out: its process ended: {reason}", "see its documentation")
        answer: dict[str, Any] = json.loads(line)
        return answer
