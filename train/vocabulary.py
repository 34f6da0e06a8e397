"""Vocabulary trimming: a text model without the embeddings of tokens that its data never use.

Most of a small transformer's weights are embeddings, and most of a general vocabulary never occurs in one data set
(Ushio et al. 2023, arXiv 2305.15020). What is kept: every token of the training texts, every token on the way to one
(byte-pair merges), every special token, and every single character or byte, so that any text can still be tokenized.
Texts made of words that were seen are tokenized exactly as before.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from serve.errors import UserError

_CHUNK = 1000


@dataclass(frozen=True)
class Trimmed:
    """A smaller tokenizer, and which rows of the embeddings it still needs: new id -> old id, int64 [V]."""

    tokenizer: bytes
    kept: np.ndarray

    def new_id(self, old: int) -> int:
        """What a kept token is called now."""
        return int(np.searchsorted(self.kept, old))


def trim_vocabulary(tokenizer: bytes, texts: Iterable[str], at_least: int = 0) -> Trimmed:
    """`tokenizer`, the content of a tokenizer.json, trimmed to what `texts` need.

    Up to `at_least` tokens, those of the lowest ids are kept too: the most frequent ones of the texts that the
    vocabulary was made from, in all kinds of tokenizer. Words that `texts` never had are then cut less often.
    Raises UserError for a kind of tokenizer that is not known here.
    """
    check_tokenizer(tokenizer)
    spec = json.loads(tokenizer)
    model = spec["model"]
    original = Tokenizer.from_buffer(tokenizer)
    needed = _seen(original, texts) | {token["id"] for token in spec["added_tokens"]}
    least = _TRIMS[model["type"]](copy.deepcopy(model), needed)
    others = sorted(set(original.get_vocab(with_added_tokens=True).values()) - least)
    more = others[: max(0, at_least - len(least))]
    kept = np.array(sorted(_TRIMS[model["type"]](model, needed.union(more))))
    new_ids = {int(old): new for new, old in enumerate(kept)}
    _renumber(spec, new_ids)
    return Trimmed(json.dumps(spec, ensure_ascii=False).encode(), kept)


def check_tokenizer(tokenizer: bytes) -> None:
    """Raise UserError for a kind of tokenizer.json that cannot be trimmed."""
    kind = json.loads(tokenizer)["model"]["type"]
    if kind not in _TRIMS:
        raise UserError(f"the vocabulary of a {kind} tokenizer cannot be trimmed", "leave out prune.vocabulary")


def _seen(tokenizer: Tokenizer, texts: Iterable[str]) -> set[int]:
    """The ids that occur in the texts, whole: what a model cuts off is not cut here."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # as serve.texts does: a "[SEP]" in a text is made of other tokens
    seen: set[int] = set()
    texts = list(texts)
    for at in range(0, len(texts), _CHUNK):
        for encoding in tokenizer.encode_batch_fast(texts[at : at + _CHUNK]):
            seen.update(encoding.ids)
    return seen


def _trim_pieces(model: dict[str, Any], seen: set[int]) -> set[int]:
    """WordPiece and WordLevel. Matching takes the longest piece there is, so what was seen is still what is found."""
    prefix = model.get("continuing_subword_prefix", "")
    kept = {id_ for piece, id_ in model["vocab"].items() if id_ in seen or len(piece.removeprefix(prefix)) == 1}
    kept.add(model["vocab"].get(model["unk_token"], next(iter(kept))))
    model["vocab"] = {piece: id_ for piece, id_ in model["vocab"].items() if id_ in kept}
    return kept | seen  # an added token may be none of the vocabulary's


def _trim_merges(model: dict[str, Any], seen: set[int]) -> set[int]:
    """BPE. A token stays with all that it is merged from, so that the merges of a seen word happen as they did."""
    vocabulary: dict[str, int] = model["vocab"]
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    parts: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        parts.setdefault(left + right.removeprefix(prefix), []).append((left, right))
    names = {id_: piece for piece, id_ in vocabulary.items()}
    kept = {
        piece
        for piece in vocabulary
        if len(piece.removeprefix(prefix).removesuffix(suffix)) <= 1 or (model.get("byte_fallback") and _is_byte(piece))
    }
    waiting = [names[id_] for id_ in seen if id_ in names]
    while waiting:
        piece = waiting.pop()
        kept.add(piece)
        for pair in parts.get(piece, ()):
            waiting.extend(part for part in pair if part not in kept)
    if model.get("unk_token"):
        kept.add(model["unk_token"])
    model["merges"] = [
        [left, right]
        for left, right in merges
        if left in kept and right in kept and left + right.removeprefix(prefix) in kept
    ]
    model["vocab"] = {piece: id_ for piece, id_ in vocabulary.items() if piece in kept}
    return set(model["vocab"].values()) | seen


def _trim_scored(model: dict[str, Any], seen: set[int]) -> set[int]:
    """Unigram. The likeliest path of a seen word is still there, and no likelier one has come."""
    kept = {id_ for id_, (piece, _) in enumerate(model["vocab"]) if id_ in seen or len(piece) == 1 or _is_byte(piece)}
    if model.get("unk_id") is not None:
        kept.add(model["unk_id"])
    return kept | seen


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x")


_TRIMS: dict[str, Callable[[dict[str, Any], set[int]], set[int]]] = {
    "WordPiece": _trim_pieces,
    "WordLevel": _trim_pieces,
    "BPE": _trim_merges,
    "Unigram": _trim_scored,
}


def _renumber(spec: dict[str, Any], new_ids: dict[int, int]) -> None:
    """New ids wherever a tokenizer.json holds one: the vocabulary, added tokens, and what is put around a text."""
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for id_, entry in enumerate(model["vocab"]) if id_ in new_ids]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_ids[model["unk_id"]]
    else:
        model["vocab"] = {piece: new_ids[id_] for piece, id_ in model["vocab"].items()}
    for token in spec["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    _renumber_processor(spec.get("post_processor"), new_ids)


def _renumber_processor(processor: dict[str, Any] | None, new_ids: dict[int, int]) -> None:
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, new_ids)
    for token in (processor.get("special_tokens") or {}).values():  # TemplateProcessing
        token["ids"] = [new_ids[id_] for id_ in token["ids"]]
    for end in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        if end in processor:
            processor[end] = [processor[end][0], new_ids[processor[end][1]]]
