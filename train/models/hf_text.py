"""Text encoders and decoders of transformers with a classification head: BERT, DistilBERT, RoBERTa, GPT-2 and kin.

N texts, L tokens of the longest, K labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PretrainedConfig

from serve.errors import UserError, said
from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from train.draft import Draft, NetworkSpec, Wanted
from train.models.heads import forget, head_of, matching_rows, own_labels, rename, take_rows
from train.models.hub import load_config, plain_config, quiet_transformers, saved_config
from train.models.options import parse_options
from train.models.pretrained import load_pretrained, set_dropout

_MAX_LENGTH = 128
DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),  # BERT, RoBERTa
    *("dropout", "attention_dropout", "seq_classif_dropout"),  # DistilBERT
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),  # GPT-2
)
_TAKE_BIAS = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra")  # a ready mask [N, 1, 1, L]
_HAVE_SEGMENTS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
_FAR_BELOW = -1e4  # added to attention scores, whose softmax is then 0 in float32; fp16 can hold it


class TextOptions(BaseModel):
    """`options` of a pretrained text model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int | None = Field(default=None, ge=2)  # tokens; None: 128, or all that the model has positions for
    dropout: float | None = Field(default=None, ge=0, lt=1)  # of hidden states, attention and head; None: its own


class TextTransformer(nn.Module):
    """Ids and mask int64 [N, L] -> logits float32 [N, K]. Texts are padded on the right.

    A model that scores the last token (its head is called `score`) looks only to the left, so what was filled up on
    the right cannot reach it and needs no mask; it finds the last token by the padding id in its configuration.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.causal = hasattr(model, "score")
        kind = model.config.model_type
        self.takes_bias = kind in _TAKE_BIAS
        self.has_segments = kind in _HAVE_SEGMENTS

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        given: dict[str, Any] = {"use_cache": False} if self.causal else {"attention_mask": mask}
        if self.takes_bias:  # what transformers would make of the mask, in three operators instead of thirty
            given["attention_mask"] = (1 - mask.to(torch.float32))[:, None, None, :] * _FAR_BELOW
        if self.has_segments:  # all tokens are of the first segment, which an exporter can then fold away
            given["token_type_ids"] = torch.zeros((1, 1), dtype=torch.int64, device=ids.device)
        logits: torch.Tensor = self.model(input_ids=ids, **given).logits
        return logits.float()


def check(folder: Path, name: str, options: dict[str, Any]) -> None:
    """Raise UserError unless the folder's architecture can classify texts and takes these options."""
    chosen = parse_options(TextOptions, name, options)
    config = load_config(folder)
    set_dropout(config, DROPOUTS, chosen.dropout, name)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        _length(chosen, _new_model(config, name), name)


def draft(folder: Path, name: str, options: dict[str, Any], wanted: Wanted) -> Draft:
    """The model of a folder with a head for the wanted labels: its own where it has exactly these, else a new one."""
    chosen = parse_options(TextOptions, name, options)
    config = load_config(folder)
    tokenizer = _tokenizer(folder, name)
    pad_id = _pad_id(config, tokenizer, name)
    set_dropout(config, DROPOUTS, chosen.dropout, name)
    rows = matching_rows(config, wanted.labels) if _has_head(config) else None
    own = own_labels(config)
    if rows is None:
        rename(config, wanted.labels)
    model = load_pretrained(AutoModelForSequenceClassification, folder, config, name, new_head=rows is None)
    config = model.config  # a copy
    if rows is None:
        forget(head_of(model))
    else:
        take_rows(head_of(model), rows)
        rename(config, wanted.labels)
    module = TextTransformer(model)
    if module.causal:
        config.pad_token_id = pad_id
    preprocessing = TextPreprocessing(
        max_length=_length(chosen, model, name), truncation=tokenizer.truncation_side, pad_id=pad_id
    )
    network = NetworkSpec(source="transformers", name=config.model_type, config=plain_config(config))
    untrained = None if rows is not None else _why_new(config, own, wanted)
    return Draft(network, module, preprocessing, None, {TOKENIZER: _plain(tokenizer)}, untrained)


def build(network: NetworkSpec, classes: int) -> nn.Module:
    """The architecture as its spec says, freshly initialised from torch's global generator."""
    config = saved_config(network.name, network.config)
    assert config.num_labels == classes
    return TextTransformer(_new_model(config, network.name))


def _new_model(config: PretrainedConfig, name: str) -> nn.Module:
    with quiet_transformers():
        try:
            model: nn.Module = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        except ValueError:
            raise UserError(
                f"'{name}' is a {config.model_type} model, which cannot classify texts",
                "take an encoder (BERT, MiniLM, DistilBERT, RoBERTa) or a decoder of the GPT-2 family",
            ) from None
    return model


def _tokenizer(folder: Path, name: str) -> Any:
    """The folder's tokenizer, as transformers reads it."""
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # its parsers raise many kinds
            raise UserError(
                f"'{name}' has no tokenizer that can be read: {said(error)}",
                f"expected {TOKENIZER} in {folder}",
            ) from None
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer of '{name}' has no fast form, which serving needs", f"expected {TOKENIZER} in {folder}"
        )
    return tokenizer


def _plain(tokenizer: Any) -> bytes:
    """The tokenizer.json that serving reads: without padding and truncation, which serving sets itself."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    content: bytes = plain.to_str().encode()
    return content


def _pad_id(config: PretrainedConfig, tokenizer: Any, name: str) -> int:
    """The padding token, or for a decoder that has none the end of text, as its fine-tuners do."""
    eos = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    pad_id = next((id_ for id_ in (tokenizer.pad_token_id, config.pad_token_id, eos) if id_ is not None), None)
    if pad_id is None:
        raise UserError(f"'{name}' has neither a padding token nor an end of text", "set pad_token_id in config.json")
    highest = max([pad_id, *tokenizer.get_vocab().values()])
    if highest >= config.vocab_size:
        raise UserError(
            f"the tokenizer of '{name}' has ids up to {highest}, its model only {config.vocab_size} embeddings",
            f"copy config.json and {TOKENIZER} from the same model",
        )
    return int(pad_id)


def _has_head(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def _why_new(config: PretrainedConfig, own: list[str], wanted: Wanted) -> str:
    if not _has_head(config):
        return "it has no classification head of its own"
    return f"its head is for the labels {', '.join(own)}, the data has {', '.join(wanted.labels)}"


def _length(options: TextOptions, model: nn.Module, name: str) -> int:
    """Tokens of the longest text that is not cut."""
    limit = _positions(model)
    if options.max_length is None:
        return _MAX_LENGTH if limit is None else min(_MAX_LENGTH, limit)
    if limit is not None and options.max_length > limit:
        raise UserError(
            f"max_length = {options.max_length} is more than the {limit} tokens that '{name}' has positions for",
            f"give at most max_length = {limit}",
        )
    return options.max_length


def _positions(model: nn.Module) -> int | None:
    """How many tokens the model has positions for; None where they are not learned and so not counted."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "wpe"):
            # RoBERTa counts positions from padding_idx + 1
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
