"""Which words a teacher decides by, so that the others are masked more readily.

The saliency of a word is the largest ||d z_y / d e_t||_2 of its tokens t: how much the teacher's logit z of the class y
that it predicts moves with the embedding e of a token (Simonyan et al. 2013, arXiv 1312.6034; for words Li et al. 2016,
arXiv 1506.01066; as a guide for augmentation SSMix, Yoon et al. 2021, arXiv 2106.08062). What counts is the rank within
the text, since the size of gradients says how sure the teacher is, and not which words made it so.

N texts, L tokens of the longest, D the width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import nn

from serve.manifest import TextPreprocessing
from serve.preparer import TOKENIZER
from train.augment.units import Unit, split
from train.classifier import Classifier
from train.models.embeddings import input_embeddings

_BATCH = 64


class Salience:
    """A teacher that is asked for the words it decides by."""

    def __init__(self, teacher: Classifier) -> None:
        spec = teacher.spec.preprocessing
        assert isinstance(spec, TextPreprocessing)
        self._teacher, self._spec = teacher, spec
        self._tokenizer = Tokenizer.from_buffer(teacher.files[TOKENIZER])
        self._tokenizer.encode_special_tokens = True  # as serve.texts does
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length, direction=spec.truncation)

    def ranks(self, texts: Sequence[str]) -> list[np.ndarray]:
        """For each text the place of each of its words among them, uint32 [n]; 0: the most salient.

        What the teacher does not read, since it is cut off, comes last. Texts of like length share a batch; a forward
        and a backward pass each, about the time of an epoch of training the teacher.
        """
        encodings = [self._tokenizer.encode(text) for text in texts]
        ranks: list[np.ndarray] = [np.empty(0, dtype=np.uint32)] * len(texts)
        order = np.argsort([len(encoding.ids) for encoding in encodings], kind="stable")
        for at in range(0, len(order), _BATCH):
            rows = order[at : at + _BATCH].tolist()
            strengths = self._strengths([encodings[row] for row in rows])
            for row, strength in zip(rows, strengths, strict=True):
                ranks[row] = _ranked(_of_words(split(texts[row]), texts[row], encodings[row], strength))
        return ranks

    def _strengths(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """||d z_y / d e_t||_2 of each token: float32 [N, L]."""
        teacher = self._teacher.eval()
        device = next(teacher.parameters()).device
        ids = torch.full((len(encodings), max(1, *(len(e.ids) for e in encodings), 0)), self._spec.pad_id)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        leaves: list[torch.Tensor] = []  # [N, L, D]

        def cut(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1]

        hook = input_embeddings(teacher).register_forward_hook(cut)
        try:
            with torch.enable_grad():
                logits = teacher(ids.to(device))
                # each text's logit depends on its own tokens alone, so that the sum has the gradients of each
                (gradients,) = torch.autograd.grad(logits.max(dim=1).values.sum(), leaves[0])
        finally:
            hook.remove()
        strengths: np.ndarray = gradients.float().norm(dim=2).cpu().numpy()
        return strengths


def _of_words(units: Sequence[Unit], text: str, encoding: Encoding, strengths: np.ndarray) -> np.ndarray:
    """The strongest token of each word: float64 [n]; -1 for a word of which no token is left."""
    word_at = np.full(len(text) + 1, -1)  # which word each character is of
    end = 0
    for number, unit in enumerate(units):
        start = end + len(unit.gap)
        end = start + len(unit.word)
        word_at[start:end] = number
    found = np.full(len(units), -1.0)
    for (first, last), special, strength in zip(
        encoding.offsets, encoding.special_tokens_mask, strengths.tolist(), strict=False
    ):
        if not special:
            for word in {*word_at[first:last].tolist()} - {-1}:  # a token may span words of a script without spaces
                found[word] = max(found[word], strength)
    return found


def _ranked(saliency: np.ndarray) -> np.ndarray:
    """The place of each from the largest on; of equal ones the first comes first."""
    ranks = np.empty(len(saliency), dtype=np.uint32)
    ranks[np.argsort(-saliency, kind="stable")] = np.arange(len(saliency), dtype=np.uint32)
    return ranks
