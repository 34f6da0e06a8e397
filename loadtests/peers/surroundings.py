"""Virtual environments for others' tools, whose versions of our libraries are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serve.errors import UserError


def own_environment(name: str, folder: Path, packages: Sequence[str], imports: str) -> Path:
    """The Python of an environment in `folder` that can `import` these; made with `packages` where it is not there yet.

    Raises UserError where it cannot be made: `name` is left out then.
    """
    python = folder / "bin" / "python"
    if python.exists() and _works(python, imports):
        return python
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise UserError(f"{name} is left out: no uv to install it with", "`make setup` installs uv into .venv")
    surroundings = {**os.environ, "VIRTUAL_ENV": str(folder), "UV_SYSTEM_CERTS": "true"}
    venv = [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)]
    for command in (venv, [uv, "pip", "install", "-q", *packages]):
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{name} is left out: {reason}", f"this failed: {' '.join(command)}")
    return python


def _works(python: Path, imports: str) -> bool:
    return subprocess.run([python, "-c", f"import {imports}"], capture_output=True, check=False).returncode == 0
