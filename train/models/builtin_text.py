"""`builtin:textcnn`: our own architecture for texts, with a tokenizer learned from the training split."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import nn

from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from train.draft import Draft, NetworkSpec, Wanted
from train.models.options import parse_options
from train.models.textcnn import TextCNN, TextCNNOptions
from train.tokenizers import PAD_ID, train_tokenizer, vocabulary_size

NAMES = ("textcnn",)
_TOKENS = "tokens"  # in a saved network's config: how many the tokenizer knows


class Options(TextCNNOptions):
    """`options` of a recipe: the network's, and those of its tokenizer."""

    vocabulary: int = Field(default=8000, ge=100, le=1_000_000)  # tokens at most
    max_length: int = Field(default=128, ge=1)  # tokens; what is longer is cut
    lowercase: bool = True


def check(name: str, options: dict[str, Any]) -> None:
    """Raise UserError unless the network takes these options."""
    parse_options(Options, name, options)


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """A fresh network, for the tokens that are found in the wanted training split."""
    chosen = parse_options(Options, name, options)
    texts = (item.decode("utf-8", errors="replace") for item in wanted.train.content)
    tokenizer = train_tokenizer(texts, chosen.vocabulary, chosen.lowercase)
    layers = chosen.model_dump(mode="json", include=set(TextCNNOptions.model_fields))
    network = NetworkSpec(source="builtin", name=name, config={**layers, _TOKENS: vocabulary_size(tokenizer)})
    preprocessing = TextPreprocessing(max_length=chosen.max_length, pad_id=PAD_ID)
    return Draft(network, build(network, len(wanted.labels)), preprocessing, None, {TOKENIZER: tokenizer})


def build(network: NetworkSpec, classes: int) -> nn.Module:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    config = dict(network.config)
    tokens = int(config.pop(_TOKENS))
    return TextCNN(tokens, classes, TextCNNOptions.model_validate(config))
