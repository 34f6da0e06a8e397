"""What decides a stage, as one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from serve.manifest import ServingConfig
from train.augment import AugmentConfig
from train.distill import DistillConfig
from train.fit_config import FitConfig

# The fields of training that count whatever their value. Any other counts only where it does not stand at its default,
# so that a run made before there was such a field is not trained again. Never change the default of a later field:
# a run could not tell. Add another field instead.
_ALWAYS: dict[type[BaseModel], frozenset[str]] = {
    FitConfig: frozenset(
        [
            *("epochs", "batch_size", "accumulation", "optimizer", "learning_rate", "weight_decay", "schedule"),
            *("warmup", "label_smoothing", "clip", "patience", "precision", "augment"),
        ]
    ),
    DistillConfig: frozenset(("method", "temperature", "alpha")),
    AugmentConfig: frozenset(("shift", "flip")),
    ServingConfig: frozenset(("threads", "workers", "graph_level")),
}


def fingerprint(content: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of `content`; pydantic models count by their fields.

    Those of [*.fit], [*.fit.augment], [students.distill] and [serving] that came later count only where they are not
    at their default. Raises TypeError for what is neither JSON nor a model.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return _deciding(value)
        raise TypeError(f"cannot hash {type(value)}")

    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()


def _deciding(model: BaseModel) -> dict[str, Any]:
    """The fields of `model` that decide, as plain JSON."""
    dumped: dict[str, Any] = model.model_dump(mode="json")
    always = _ALWAYS.get(type(model))
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if always is not None and name not in always and value == field.get_default(call_default_factory=True):
            dumped.pop(name, None)
        elif type(value) in _ALWAYS:
            dumped[name] = _deciding(value)
    return dumped
