"""Start here: pipeline.py is the main flow. From Python: `from compress import run, load, evaluate`; see api.py."""

import os
from typing import TYPE_CHECKING

# torch's OpenMP threads spin while they wait for each other. Beside any other load that costs dearly (measured on 2
# cores with one busy: 10 s instead of 1.4 s for an epoch on digits), and without load sleeping costs almost nothing.
# Read once, when torch is first imported, so it must stand here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# ONNX Runtime reports its use to Microsoft unless told not to before it is first imported; see serve/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from compress.api import Run as Run
    from compress.api import read_run as read_run
    from compress.api import run as run
    from compress.api import serving as serving
    from compress.use import Evaluation as Evaluation
    from compress.use import Model as Model
    from compress.use import evaluate as evaluate
    from compress.use import load as load

# Imported when asked for. Commands that a module is named after are in compress.api alone.
_FUNCTIONS = {
    **dict.fromkeys(("Run", "read_run", "run", "serving"), "compress.api"),
    **dict.fromkeys(("Evaluation", "Model", "evaluate", "load"), "compress.use"),
}
__all__ = sorted(_FUNCTIONS)


def __getattr__(name: str) -> object:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS])
