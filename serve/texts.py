"""The one implementation of text preprocessing: UTF-8 bytes to token ids, on the Rust tokenizers alone.

N texts, L tokens of the longest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from serve.errors import InputError, PackageError
from serve.manifest import TextPreprocessing


class TextPreparer:
    """Tokenizes texts and pads them, on the right, to the longest of the batch; `serve.preparer.Preparer`."""

    input = "input_ids"

    def __init__(self, spec: TextPreprocessing, tokenizer: bytes) -> None:
        self._spec = spec
        self._fingerprint = f"{spec.model_dump_json()} {hashlib.sha256(tokenizer).hexdigest()}"
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer)
        except Exception as error:  # the Rust side raises plain Exception
            raise PackageError(f"the tokenizer cannot be read: {error}", "write the package again") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length, direction=spec.truncation)

    def prepare(self, items: Sequence[bytes]) -> np.ndarray:
        """Texts to ids int64 [N, L]. Raises InputError for the first that is empty or not UTF-8."""
        texts = [read_text(item) for item in items]
        return self._pad([encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)])

    def join(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        return self._pad([row for batch in batches for row in batch])

    def alone(self, batch: np.ndarray) -> list[np.ndarray]:
        return [self._pad([self._trim(row)]) for row in batch]

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


def read_text(item: bytes) -> str:
    """The text of an item. Raises InputError if there is none."""
    try:
        text = item.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("not_text", "the input is not UTF-8 text", "send UTF-8") from None
    if not text.strip():
        raise InputError("empty_input", "the text is empty", "send a text with at least one visible character")
    return text
