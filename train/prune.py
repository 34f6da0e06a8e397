"""[students.prune]: what a trained student can do without. Applied after training, before export."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from tokenizers import Tokenizer

from serve.errors import UserError
from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from train.classifier import Classifier
from train.models import build_network
from train.models.embeddings import input_embeddings
from train.vocabulary import Trimmed, check_tokenizer, trim_vocabulary

_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id")


class PruneConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # Text: the embeddings of how many tokens are kept. Those of the training texts and every single character always
    # are ("seen": no more than these); a number adds the most frequent others, as far as it reaches.
    vocabulary: Literal["seen"] | PositiveInt | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything is pruned at all."""
        return self != PruneConfig()


def check_prunable(classifier: Classifier) -> None:
    """Raise UserError unless the vocabulary of `classifier`, trained or not, can be trimmed."""
    spec = classifier.spec
    if spec.network.source != "transformers" or not isinstance(spec.preprocessing, TextPreprocessing):
        raise UserError(
            f"prune.vocabulary trims the tokenizer of a pretrained text model, and '{spec.model}' is none",
            "leave it out; builtin:textcnn learns a vocabulary of its own size: options = { vocabulary = 4000 }",
        )
    check_tokenizer(classifier.files[TOKENIZER])


def prune(classifier: Classifier, config: PruneConfig, texts: Iterable[str]) -> Classifier:
    """The same transformer with the embeddings that `config` leaves it, `texts` being those of the training split.

    Raises UserError for other models.
    """
    check_prunable(classifier)
    spec = classifier.spec
    assert isinstance(spec.preprocessing, TextPreprocessing)
    trimmed = trim_vocabulary(
        classifier.files[TOKENIZER], texts, config.vocabulary if isinstance(config.vocabulary, int) else 0
    )
    network_config = {**spec.network.config, "vocab_size": len(trimmed.kept)}
    for key in _TOKEN_IDS:
        if isinstance(network_config.get(key), int):
            network_config[key] = _new_id(trimmed, network_config[key])
    pad_id = _new_id(trimmed, spec.preprocessing.pad_id)
    assert pad_id is not None
    smaller = spec.model_copy(
        update={
            "network": spec.network.model_copy(update={"config": network_config}),
            "preprocessing": spec.preprocessing.model_copy(update={"pad_id": pad_id}),
        }
    )
    network = build_network(smaller.network, smaller.preprocessing, len(smaller.labels))
    network.load_state_dict(_rows_of(classifier, trimmed.kept))
    return Classifier(smaller, network, {TOKENIZER: trimmed.tokenizer}).train(classifier.training)


def cut_otherwise(before: Classifier, after: Classifier, texts: Iterable[str]) -> int:
    """How many of these texts, which training did not see, the pruned tokenizer cuts into other tokens."""
    whole, pruned = (Tokenizer.from_buffer(classifier.files[TOKENIZER]) for classifier in (before, after))
    for tokenizer in (whole, pruned):
        tokenizer.encode_special_tokens = True  # as serve.texts does
    return sum(whole.encode(text).tokens != pruned.encode(text).tokens for text in texts)


def _new_id(trimmed: Trimmed, old: int) -> int | None:
    """None for a special token that neither the tokenizer nor any text has."""
    new = trimmed.new_id(old)
    return new if new < len(trimmed.kept) and trimmed.kept[new] == old else None


def _rows_of(classifier: Classifier, kept: np.ndarray) -> dict[str, torch.Tensor]:
    """The network's weights, of the word embeddings only the rows that are kept."""
    table, rows = input_embeddings(classifier).weight.data_ptr(), torch.from_numpy(kept)
    return {
        name: tensor[rows] if tensor.data_ptr() == table else tensor
        for name, tensor in classifier.network.state_dict().items()
    }
