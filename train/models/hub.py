"""From `hf:` and `pkg:` names to a local folder with a configuration and safetensors, and what can be wrong with it.

hf:DIR            a folder, relative to the working directory; ${LIMBECK_DATA} is expanded
hf:ORG/NAME       a model of the Hugging Face hub, from its local cache where there is no network
pkg:MODULE/PATH   a folder inside an installed Python package, which is not imported
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from serve.errors import UserError, said
from train.hub import fetch
from train.sources import expand

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Kind = Literal["hf", "pkg"]
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "model.pt")
_CONVERT = (
    'where you trust that file, convert it once: python -c "from transformers import {auto} as A; '
    "A.from_pretrained('OLD', use_safetensors=False).save_pretrained('NEW')\""
)
# What is fetched from the hub: no pickled weights, no code
_FETCHED = [CONFIG, "preprocessor_config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt"]
_WEIGHTS = ["model.safetensors*", "model-*.safetensors"]
_NOT_SAVED = (
    "model_type",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "auto_map",
    "transformers_version",
    "dtype",
)
_DECIDING = (".json", ".txt", ".model", ".safetensors")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def resolve(kind: Kind, name: str, weights: bool = True) -> Path:
    """The local folder of a model, fetched from the hub if need be (only its small files without `weights`).

    Raises UserError with what to do where there is none.
    """
    folder = _installed(name) if kind == "pkg" else _local_or_hub(name, weights)
    if not (folder / CONFIG).is_file():
        raise UserError(f"'{kind}:{name}': there is no {CONFIG} in {folder}", "expected a Hugging Face model folder")
    if weights:
        check_weights(folder)
    return folder


def check_weights(folder: Path, auto: str = "AutoModelForSequenceClassification") -> None:
    """Raise UserError unless `folder` holds safetensors. Pickled weights can run code when they are read."""
    if (folder / WEIGHTS).is_file() or (folder / INDEX).is_file():
        return
    pickled = next((name for name in _PICKLED if (folder / name).exists()), None)
    if pickled:
        raise UserError(f"{folder} holds {pickled}, which is pickled; only safetensors are read", _convert(auto))
    raise UserError(f"there is no {WEIGHTS} in {folder}", f"expected the model's weights there; {_convert(auto)}")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands. Raises UserError where it is no JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / CONFIG}: {said(error)}", "copy the model's folder again") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG} is not a JSON object", "copy the model's folder again")
    return config


def load_config(folder: Path) -> PretrainedConfig:
    """The configuration as transformers knows it. Raises UserError for an architecture that needs code of its own."""
    from transformers import AutoConfig

    with quiet_transformers():
        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (ValueError, KeyError, OSError) as error:
            kind = read_config(folder).get("model_type")
            raise UserError(
                f"transformers knows no model of type {kind!r} ({folder / CONFIG}): {said(error)}",
                "take a model that transformers knows by itself; code that comes with a model is never run",
            ) from None


def plain_config(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration for a spec.json, beside its model type: without a path of the machine that it was read on."""
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    for name in _NOT_SAVED:
        content.pop(name, None)
    return content


def saved_config(model_type: str, content: dict[str, Any]) -> PretrainedConfig:
    """The configuration that `plain_config` gave."""
    from transformers import AutoConfig

    with quiet_transformers():
        config: PretrainedConfig = AutoConfig.for_model(model_type, **content)
    return config


def fingerprint(folder: Path) -> str:
    """sha256 of what a model is made from: its configuration, tokenizer and safetensors."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in _DECIDING and file.is_file()):
        with file.open("rb") as content:
            digest.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' remarks on new heads and its progress bars, which mean nothing to our user."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)  # above errors: a missing head is one of them
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _convert(auto: str) -> str:
    return _CONVERT.format(auto=auto)


def _installed(name: str) -> Path:
    module, _, inside = name.partition("/")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    roots = list(found.submodule_search_locations or []) if found else []
    if not roots:
        line = f"pip install {module.replace('_', '-')}"
        raise UserError(f"'pkg:{name}': there is no Python package '{module}' here", f"{line}, in this environment")
    folder = Path(roots[0]) / inside
    if not folder.is_dir():
        folders = sorted(
            entry.name for entry in Path(roots[0]).iterdir() if entry.is_dir() and entry.name[0] not in "_."
        )
        raise UserError(f"'pkg:{name}': no folder '{inside}' in {roots[0]}", f"folders: {', '.join(folders) or 'none'}")
    return folder


def _local_or_hub(name: str, weights: bool) -> Path:
    folder = expand(name)
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~", "$")) or not _HUB_ID.fullmatch(name):
        raise UserError(f"'hf:{name}': no folder {folder}", "give a folder with config.json, or an id as org/name")
    return fetch("model", name, _FETCHED + (_WEIGHTS if weights else []))
