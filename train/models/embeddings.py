"""Where a text model keeps the embeddings of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from serve.errors import UserError

if TYPE_CHECKING:
    from train.classifier import Classifier


def input_embeddings(classifier: Classifier) -> nn.Embedding:
    """The table [V, D] of a transformer or a TextCNN. Raises UserError for a model that has none."""
    inner: Any = getattr(classifier.network, "model", None)
    if hasattr(inner, "get_input_embeddings"):
        found = inner.get_input_embeddings()
    else:
        found = getattr(classifier.network, "embedding", None)
    if not isinstance(found, nn.Embedding):
        raise UserError(
            f"'{classifier.spec.model}' has no word embeddings",
            "take a transformer of the hf: or pkg: kind, or textcnn",
        )
    return found
