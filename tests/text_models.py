"""Tiny transformers in folders, as a user would have them: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from train.classifier import Classifier, ModelConfig, new_classifier
from train.draft import Wanted
from train.sources import Items

FAMILIES = ("bert", "distilbert", "roberta", "gpt2")
WORDS = ("a", "bad", "best", "boring", "film", "fun", "good", "great", "it", "is", "movie", "not", "the", "this", "was")
TEXTS = [
    b"a good film",
    b"bad",
    b"this movie was not boring , it is the best !",
    b"great fun",
    "\u00e7a va \u7535\u5f71".encode(),
    b"the the the the the the the the the the the the the the",
]


def wanted(labels: tuple[str, ...] = ("neg", "pos"), seed: int = 1, teacher: Classifier | None = None) -> Wanted:
    """What a text classifier with these labels must fit."""
    items = Items(TEXTS, np.arange(len(TEXTS)) % len(labels))

    def images(_: Any) -> Any:
        raise AssertionError("there are no images")

    return Wanted("text", labels, seed, items, images, teacher)


def text_classifier(
    model: str, labels: tuple[str, ...] = ("neg", "pos"), teacher: Classifier | None = None, **options: Any
) -> Classifier:
    """A new classifier of texts, in eval mode."""
    config = ModelConfig(model=model, options=options).checked("text")
    return new_classifier(config, wanted(labels, teacher=teacher)).eval()


def tiny_config(family: str, layers: int = 2, **changes: Any) -> PretrainedConfig:
    """A configuration of a few thousand weights."""
    size = len(WORDS) + 5
    if family == "distilbert":
        fields: dict[str, Any] = {"dim": 32, "hidden_dim": 64, "n_heads": 2, "n_layers": layers, "vocab_size": size}
        return DistilBertConfig(**{**fields, "max_position_embeddings": 40, **changes})
    if family == "gpt2":
        fields = {"n_embd": 32, "n_head": 2, "n_layer": layers, "n_positions": 40, "vocab_size": size}
        return GPT2Config(**{**fields, "bos_token_id": 4, "eos_token_id": 4, **changes})
    fields = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    positions = 42 if family == "roberta" else 40  # RoBERTa's first two are never used
    fields |= {"vocab_size": size, "max_position_embeddings": positions, "pad_token_id": 1, **changes}
    return (RobertaConfig if family == "roberta" else BertConfig)(**fields)


def tiny_folder(
    path: Path, family: str = "bert", labels: tuple[str, ...] | None = None, layers: int = 2, **changes: Any
) -> Path:
    """A model with random weights, saved; with a trained head for `labels`, or without one."""
    torch.manual_seed(0)
    config = tiny_config(family, layers, initializer_range=0.3, **changes)
    if labels is None:
        AutoModel.from_config(config).save_pretrained(path)
    else:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: at for at, label in enumerate(labels)}
        AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    tiny_tokenizer(special=family != "gpt2").save_pretrained(path)
    return path


def tiny_tokenizer(special: bool = True) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that pads and cuts by itself, as saved ones often do."""
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "<end>", *WORDS]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.enable_padding(pad_id=1, pad_token="[PAD]", length=16)
    tokenizer.enable_truncation(16)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"} if special else {"eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **names)
