"""OpenVINO beside us: its own virtual environment, and a child process that computes when it is asked to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.peers.surroundings import own_environment
from serve.errors import UserError

_CHILD = Path(__file__).parent / "openvino_child.py"


def environment(folder: Path) -> Path:
    """The Python of an environment in `folder` with OpenVINO and NNCF. Raises UserError where there is none."""
    return own_environment("OpenVINO", folder, ("openvino", "nncf"), "openvino, nncf")


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
