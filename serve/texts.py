"""The one implementation of text preprocessing: UTF-8 bytes to token ids, on the Rust tokenizers alone.

N texts, L tokens of the longest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from serve.errors import InputError, PackageError, said
from serve.manifest import TextPreprocessing

# The threads of the model are what a package says and what evaluation reports; left alone, tokenizing a batch would
# take a thread for every core beside them, and print warnings after a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Of WordPiece's `max_input_chars_per_word`. Its time grows with the cube of a word's length: one word of 4,000 letters
# takes 1.8 s, 100,000 characters in words of 256 take 0.2 s (2.5 GHz). BERT's own is 100; longer words are unknown.
_MAX_WORD_CHARS = 256
_REMEDY = "copy the package again, or write it again from the model's own tokenizer"


class TextPreparer:
    """Tokenizes texts and pads them, on the right, to the longest of the batch; `serve.preparer.Preparer`."""

    input = "input_ids"

    def __init__(self, spec: TextPreprocessing, tokenizer: bytes) -> None:
        """`tokenizer` is the content of a tokenizer.json. Raises PackageError if it cannot do what `spec` says."""
        self._spec = spec
        self._fingerprint = f"{spec.model_dump_json()} {hashlib.sha256(tokenizer).hexdigest()}"
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer)
        except Exception as error:  # the Rust side raises plain Exception
            raise PackageError(f"tokenizer.json cannot be read: {said(error)}", _REMEDY) from None
        _check(self._tokenizer, tokenizer, spec)
        # What a stranger writes is text: "[SEP]" is a bracket, a word and a bracket, and not the end of a sentence;
        # "[PAD]" is no hole in it. A tokenizer.json cannot say so. What the tokenizer adds by itself, it still adds.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length, direction=spec.truncation)

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        """Texts to ids int64 [N, L]. Raises InputError for the first that is empty or not UTF-8."""
        texts = [read_text(item) for item in items]
        # "fast" leaves out offsets: 70 us for one SST-2 sentence instead of 85, and 38 for each of 32 instead of 46
        return self._pad([encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)])

    def prepare_one(self, item: bytes) -> tuple[np.ndarray, bool]:
        """Ids int64 [1, L] of one text, and whether it had more than `max_length` tokens, so that an end was cut."""
        encoding = self._tokenizer.encode_batch_fast([read_text(item)])[0]
        return self._pad([encoding.ids]), bool(encoding.overflowing)

    def join(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        return self._pad([row for batch in batches for row in batch])

    def alone(self, batch: np.ndarray) -> list[np.ndarray]:
        return [self._pad([self._trim(row)]) for row in batch]

    def padded(self, batch: np.ndarray) -> np.ndarray:
        return np.pad(batch, ((0, 0), (0, 1)), constant_values=self._spec.pad_id)[:, : self._spec.max_length]

    def sample(self) -> bytes:
        return b"a text"

    def fingerprint(self) -> str:
        return self._fingerprint

    def expected(self) -> str:
        return "int64 [N, L]"

    def _trim(self, row: np.ndarray) -> np.ndarray:
        kept = np.flatnonzero(row != self._spec.pad_id)
        return row[: kept[-1] + 1] if len(kept) else row[:0]

    def _pad(self, rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        longest = max(1, max(len(row) for row in rows))  # a text may have no token that the tokenizer knows
        batch = np.full((len(rows), longest), self._spec.pad_id, dtype=np.int64)
        for at, row in enumerate(rows):
            batch[at, : len(row)] = row
        return batch


def _check(tokenizer: Tokenizer, content: bytes, spec: TextPreprocessing) -> None:
    """Raise PackageError for what would go wrong only later: at a long word, or at the first batch."""
    vocabulary = tokenizer.get_vocab_size()
    if spec.pad_id >= vocabulary:
        raise PackageError(
            f"pad_id is {spec.pad_id}, but tokenizer.json has ids from 0 to {vocabulary - 1}",
            "the manifest and the tokenizer are of different models; write the package again",
        )
    special = tokenizer.num_special_tokens_to_add(False)
    if spec.max_length <= special:  # and the tokenizer would not cut at all
        raise PackageError(
            f"max_length is {spec.max_length}, but tokenizer.json adds {special} tokens to each text",
            f"expected at least {special + 1}; write the package again with a larger max_length",
        )
    word = json.loads(content)["model"].get("max_input_chars_per_word") or 0
    if word > _MAX_WORD_CHARS:
        raise PackageError(
            f"tokenizer.json takes words of up to {word} characters, and a long one would take seconds",
            f"train the tokenizer with max_input_chars_per_word of at most {_MAX_WORD_CHARS} (100 is usual)",
        )


def read_text(item: bytes) -> str:
    """The text of an item. Raises InputError if there is none."""
    try:
        text = item.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("not_text", "the input is not UTF-8 text", "send UTF-8") from None
    if not text.strip():
        raise InputError("empty_input", "the text is empty", "send a text with at least one visible character")
    return text
