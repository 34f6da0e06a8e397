"""LitServe in a virtual environment of its own, which sees our packages behind its own: the same runtime, one model."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from loadtests.peers.surroundings import own_environment

_PACKAGES = ("litserve", "uvloop", "httptools")


def environment(folder: Path) -> Path:
    """The Python of an environment in `folder` with LitServe; made where it is not there yet.

    Raises UserError where it cannot be made.
    """
    python = own_environment("LitServe", folder, _PACKAGES, "litserve, onnxruntime, tokenizers")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # A path file is read last: what LitServe asked for in its own versions goes before ours.
    (folder / "lib" / version / "site-packages" / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python
