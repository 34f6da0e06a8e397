"""Trimming keeps every answer on the words that were seen, and an answer for every text."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer, Trainer, UnigramTrainer, WordPieceTrainer

from serve.errors import UserError
from train.vocabulary import trim_vocabulary

GENERAL = [
    "the quick brown fox jumps over the lazy dog near the riverbank",
    "transformers understand languages and translate sentences between them",
    "an unbelievable performance by an unforgettable actress in a forgettable movie",
    "numbers such as 1024 and 2048 are powers of two; 3 is not",
] * 5
SEEN = ["the movie is unforgettable", "a lazy fox, a quick dog!", "powers of the actress"]
UNSEEN = ["an unbelievable transformer translates 2048 sentences", "zzz qqq xjk", "日本 🎬"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def trained(kind: str) -> Tokenizer:
    tokenizer: Tokenizer
    trainer: Trainer
    if kind == "WordPiece":
        tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
        trainer = WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind == "BPE":
        tokenizer = Tokenizer(BPE())
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        tokenizer = Tokenizer(Unigram())
        trainer = UnigramTrainer(vocab_size=200, unk_token="[UNK]", special_tokens=SPECIAL, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.train_from_iterator(GENERAL, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    if kind == "Unigram":
        tokenizer.post_processor = processors.BertProcessing(*ends)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


KINDS = ("WordPiece", "BPE", "Unigram")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [0, 10])
def test_seen_words_are_tokenized_as_before_and_any_text_can_still_be(kind: str, more: int) -> None:
    original = trained(kind)
    trimmed = trim_vocabulary(original.to_str().encode(), SEEN, more)
    smaller = Tokenizer.from_buffer(trimmed.tokenizer)
    assert smaller.get_vocab_size() == len(trimmed.kept) < original.get_vocab_size()
    for text in SEEN:
        assert [int(trimmed.kept[id_]) for id_ in smaller.encode(text).ids] == original.encode(text).ids
        assert smaller.encode(text).tokens == original.encode(text).tokens
    for text in UNSEEN:
        ours, theirs = smaller.encode(text), original.encode(text)
        assert max(ours.ids) < len(trimmed.kept)
        assert ours.tokens.count("[UNK]") <= theirs.tokens.count("[UNK]")
        assert ours.tokens[0] == "[CLS]"
        assert ours.tokens[-1] == "[SEP]"


@pytest.mark.parametrize("kind", KINDS)
def test_more_tokens_cut_unseen_words_less(kind: str) -> None:
    original = trained(kind)
    content = original.to_str().encode()
    lengths = []
    for more in (0, original.get_vocab_size() - 20, 10_000):
        smaller = Tokenizer.from_buffer(trim_vocabulary(content, SEEN, more).tokenizer)
        lengths.append(sum(len(smaller.encode(text).ids) for text in GENERAL))
    assert lengths[0] > lengths[1] >= lengths[2] == sum(len(original.encode(text).ids) for text in GENERAL)


def test_a_kept_id_is_found_and_the_same_texts_give_the_same_bytes() -> None:
    content = trained("WordPiece").to_str().encode()
    trimmed = trim_vocabulary(content, SEEN)
    assert trim_vocabulary(content, reversed(SEEN)).tokenizer == trimmed.tokenizer
    for new, old in enumerate(trimmed.kept):
        assert trimmed.new_id(int(old)) == new


def test_a_kind_that_is_not_known_is_refused() -> None:
    spec = json.loads(trained("WordPiece").to_str())
    spec["model"]["type"] = "Novel"
    with pytest.raises(UserError, match="Novel tokenizer cannot be trimmed"):
        trim_vocabulary(json.dumps(spec).encode(), SEEN)
