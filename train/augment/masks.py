"""Texts with masked words as token ids.

N texts, L tokens of the longest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from tokenizers import AddedToken, Tokenizer

from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from serve.texts import TextPreparer
from train.augment.units import MASK, is_masked, join, split
from train.classifier import Classifier

_MASK_TOKENS = ("[MASK]", "<mask>")  # BERT and kin; RoBERTa and kin


class MaskingPreparer:
    """Tokenizes as the classifier's own preparer does, but for masked words.

    They become the mask token, which no written text becomes; where the tokenizer has none, they are left out.
    """

    def __init__(self, classifier: Classifier) -> None:
        spec = classifier.spec.preprocessing
        assert isinstance(spec, TextPreprocessing)
        content = classifier.files[TOKENIZER]
        tokenizer = Tokenizer.from_buffer(content)
        added = json.loads(content).get("added_tokens", [])
        found = next((token for token in added if token["content"] in _MASK_TOKENS and token["special"]), None)
        self.mask_id: int | None = None if found is None else int(found["id"])
        self._stand_in = -1
        if found is not None:
            # no special token, which TextPreparer would take for text
            tokenizer.add_tokens(
                [AddedToken(MASK, lstrip=found["lstrip"], rstrip=found["rstrip"], normalized=False, special=False)]
            )
            stand_in = tokenizer.token_to_id(MASK)
            assert stand_in is not None
            self._stand_in = stand_in
            content = tokenizer.to_str().encode()
        self._preparer = TextPreparer(spec, content)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Texts in which `units.MASK` stands for masked words, as ids int64 [N, L]."""
        if self.mask_id is None:
            texts = [without_masks(text) for text in texts]
        ids = self._preparer.prepare([text.encode() for text in texts])
        if self.mask_id is not None:
            ids[ids == self._stand_in] = self.mask_id
        return ids


def without_masks(text: str) -> str:
    """The text without its masked words."""
    return join([unit for unit in split(text) if not is_masked(unit)]) if MASK in text else text
