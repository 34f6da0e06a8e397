"""`onnx:FILE`: a classifier of which there is only its graph. `limbeck optimize` packages it; nothing can train it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

from serve.errors import UserError
from serve.manifest import Task
from train.draft import Wanted
from train.sources import expand


def check(name: str, options: dict[str, Any], task: Task) -> None:
    """Raise UserError unless there is such a file; what is in it is read when it is packaged."""
    if options:
        raise UserError(
            f"'onnx:{name}' takes no options, got {', '.join(options)}",
            "leave them out; model.toml beside it describes it",
        )
    if not expand(name).is_file():
        raise UserError(
            f"'onnx:{name}': there is no file {expand(name)}",
            f"give an ONNX file, for example onnx:model.onnx; paths count from the working directory, {Path.cwd()}",
        )


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> NoReturn:
    """There is no network to be trained, or to teach."""
    raise UserError(
        f"'onnx:{name}' is a graph for serving: it can be neither trained nor asked to teach",
        "`limbeck optimize` searches its precisions and runtime settings; for students give the model as safetensors",
    )


def origin(name: str, options: dict[str, Any]) -> str:
    """A hash of the file."""
    return hashlib.sha256(expand(name).read_bytes()).hexdigest()
