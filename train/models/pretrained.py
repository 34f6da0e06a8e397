"""What pretrained models of both tasks share: their weights read from a folder, their dropout set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from serve.errors import UserError, said
from train.models.hub import quiet_transformers


def load_pretrained(auto: Any, folder: Path, config: PretrainedConfig, name: str, new_head: bool) -> PreTrainedModel:
    """The model of the class `auto` with the folder's weights, in float32.

    Only what stands before a `new_head` may be missing among them: all that is not the body, and the body's pooler.
    Raises UserError for weights that cannot be read or are another model's.
    """
    with quiet_transformers():
        try:
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"cannot read the weights of '{name}': {said(error)}", "copy the model's folder again"
            ) from None
    body = f"{model.base_model_prefix}."
    odd = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    lacking = sorted(key for key in odd if not new_head or (key.startswith(body) and ".pooler." not in key))
    if lacking:
        raise UserError(
            f"the weights in {folder} are not those of the model that its config.json describes: "
            f"{len(lacking)} are missing or of another size, such as {lacking[0]}",
            "copy config.json and model.safetensors from the same model",
        )
    loaded: PreTrainedModel = model
    return loaded


def set_dropout(config: PretrainedConfig, options: Sequence[str], dropout: float | None, name: str) -> None:
    """Set those of `options` that the configuration has; None leaves it as it is. Raises UserError if it has none."""
    if dropout is None:
        return
    known = [option for option in options if hasattr(config, option)]
    if not known:
        raise UserError(f"'{name}' has no dropout", "leave out options.dropout")
    for option in known:
        setattr(config, option, dropout)
