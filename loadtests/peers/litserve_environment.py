"""LitServe in a virtual environment of its own, which sees our packages behind its own: the same runtime, one model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from serve.errors import UserError

_PACKAGES = ("litserve", "uvloop", "httptools")


def environment(folder: Path) -> Path:
    """The Python of an environment in `folder` with LitServe; made where it is not there yet.

    Raises UserError where it cannot be made.
    """
    python = folder / "bin" / "python"
    if python.exists() and _works(python):
        return python
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise UserError("LitServe is left out: no uv to install it with", "`make setup` installs uv into .venv")
    surroundings = {**os.environ, "VIRTUAL_ENV": str(folder), "UV_SYSTEM_CERTS": "true"}
    for command in (
        [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "-q", *_PACKAGES],
    ):
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"LitServe is left out: {reason}", f"this failed: {' '.join(command)}")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path file is read last: what LitServe asked for in its own versions goes before ours.
    (folder / "lib" / version / "site-packages" / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def _works(python: Path) -> bool:
    command = [python, "-c", "import litserve, onnxruntime, tokenizers"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
