"""`builtin:textcnn`: our own architecture for texts, with a tokenizer learned from the training split.

Or, with `embeddings = "teacher"`, with the teacher's tokenizer and its fine-tuned word embeddings to start from.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from serve.errors import UserError
from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from train.draft import Draft, NetworkSpec, Wanted
from train.models.options import parse_options
from train.models.teacher_embeddings import teacher_embeddings
from train.models.textcnn import TextCNN, TextCNNOptions
from train.tokenizers import PAD_ID, train_tokenizer, vocabulary_size

NAMES = ("textcnn",)
_TOKENS = "tokens"  # in a saved network's config: how many the tokenizer knows
_OF_A_NEW_TOKENIZER = ("vocabulary", "lowercase")


class Options(TextCNNOptions):
    """`options` of a recipe: the network's, and those of its tokenizer."""

    vocabulary: int = Field(default=8000, ge=100, le=1_000_000)  # tokens at most
    max_length: int = Field(default=128, ge=1)  # tokens; what is longer is cut
    lowercase: bool = True
    # "teacher": its tokenizer and its embeddings, `embedding` wide (by default as wide as its own, cut to as many
    # tokens as it reads); they go on learning
    embeddings: Literal["new", "teacher"] = "new"


def check(name: str, options: dict[str, Any]) -> None:
    """Raise UserError unless the network takes these options."""
    chosen = parse_options(Options, f"builtin:{name}", options)
    useless = [option for option in _OF_A_NEW_TOKENIZER if option in chosen.model_fields_set]
    if useless and chosen.embeddings == "teacher":
        raise UserError(
            f"'builtin:{name}' with embeddings = \"teacher\" has the teacher's tokenizer, so options.{useless[0]} "
            "would have no effect",
            "leave it out",
        )


def needs_teacher(options: dict[str, Any]) -> bool:
    """Whether a model with these options starts from the weights of the recipe's teacher."""
    return options.get("embeddings") == "teacher"


def draft(name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """A fresh network, for the tokens of the teacher or for those that are found in the wanted training split."""
    chosen = parse_options(Options, f"builtin:{name}", options)
    if chosen.embeddings == "teacher":
        return _draft_from_teacher(name, chosen, wanted)
    texts = (item.decode("utf-8", errors="replace") for item in wanted.train.content)
    tokenizer = train_tokenizer(texts, chosen.vocabulary, chosen.lowercase)
    network = _spec(name, chosen, vocabulary_size(tokenizer), chosen.embedding)
    preprocessing = TextPreprocessing(max_length=chosen.max_length, pad_id=PAD_ID)
    return Draft(network, build(network, len(wanted.labels)), preprocessing, None, {TOKENIZER: tokenizer})


def build(network: NetworkSpec, classes: int) -> TextCNN:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    config = dict(network.config)
    tokens = int(config.pop(_TOKENS))
    return TextCNN(tokens, classes, TextCNNOptions.model_validate(config))


def _draft_from_teacher(name: str, chosen: Options, wanted: Wanted) -> Draft:
    teacher, given = wanted.teacher, chosen.model_fields_set
    if teacher is None or not isinstance(teacher.spec.preprocessing, TextPreprocessing):
        raise UserError(
            f"'builtin:{name}' with embeddings = \"teacher\" needs a teacher of texts, and there is none",
            "leave it out, or give it to a student",
        )
    table = teacher_embeddings(teacher, chosen.embedding if "embedding" in given else None)
    network = _spec(name, chosen, *table.shape)
    module = build(network, len(wanted.labels))
    with torch.no_grad():
        module.embedding.weight.copy_(table)
    theirs = teacher.spec.preprocessing
    preprocessing = theirs.model_copy(update={"max_length": chosen.max_length}) if "max_length" in given else theirs
    return Draft(network, module, preprocessing, None, teacher.files)


def _spec(name: str, chosen: Options, tokens: int, width: int) -> NetworkSpec:
    layers = chosen.model_dump(mode="json", include=set(TextCNNOptions.model_fields))
    return NetworkSpec(source="builtin", name=name, config={**layers, "embedding": width, _TOKENS: tokens})
