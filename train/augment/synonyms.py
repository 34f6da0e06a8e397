"""Tables of synonyms: near words in a model's embeddings, a thesaurus in a file, or WordNet.

V words that occur in the data and are one token each, D the width of the embeddings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from serve.errors import UserError, said
from serve.preparer import TOKENIZER
from train.augment.replacements import Table
from train.classifier import Classifier
from train.models.embeddings import input_embeddings
from train.sources.paths import expand

EMBEDDINGS, WORDNET = "embeddings", "wordnet"
_NEIGHBOURS = 8  # of each word, at most; farther ones are hardly related
_BLOCK_FLOATS = 2**24  # similarities in memory at a time: 64 MB
_INSTALL_WORDNET = "pip install 'limbeck[wordnet]', then python -m nltk.downloader wordnet; or name a thesaurus file"


def check_synonyms(source: str) -> None:
    """Raise UserError where synonyms from this source cannot be had, before anything is trained."""
    if source == WORDNET:
        _wordnet()
    elif source != EMBEDDINGS:
        read_thesaurus(source)


def fingerprint(source: str) -> str | None:
    """Names the content of a thesaurus file; None where the source is no file."""
    return None if source in (EMBEDDINGS, WORDNET) else hashlib.sha256(_path(source).read_bytes()).hexdigest()


def synonym_table(source: str, counts: Mapping[str, int], model: Classifier) -> Table:
    """For the words that occur (`counts`), what may stand in their place; `model` gives the embeddings."""
    if source == EMBEDDINGS:
        return neighbours(counts, model)
    if source == WORDNET:
        return from_wordnet(counts)
    return read_thesaurus(source)


def read_thesaurus(where: str) -> Table:
    """A file with `word<TAB>synonym,synonym` in each line, or (.json) an object of words with lists of synonyms."""
    path = _path(where)
    try:
        content = path.read_text(encoding="utf-8-sig")
        entries = _of_json(content) if path.suffix.lower() == ".json" else _of_lines(content)
    except (UnicodeDecodeError, ValueError) as error:
        what = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UserError(
            f"the thesaurus {path} cannot be read: {what}",
            'expected word<TAB>synonym,synonym in each line, or in a .json file {"word": ["synonym"]}',
        ) from None
    table = _tidied(entries)
    if not table:
        raise UserError(f"the thesaurus {path} holds no synonyms", "expected word<TAB>synonym,synonym in each line")
    return table


@torch.no_grad()
def neighbours(counts: Mapping[str, int], model: Classifier) -> Table:
    """The nearest words of each by the cosine of the model's input embeddings, the mean taken off them first.

    Without the mean, which all share, frequent words are near to everything (Mu & Viswanath 2018, arXiv 1702.01417).
    Such neighbours are used alike, which antonyms are too. Whole-word tokens of the data only; V x D floats, and
    64 MB of similarities at a time. Raises UserError for a model without trained word embeddings.
    """
    words = _whole_words(counts, Tokenizer.from_buffer(model.files[TOKENIZER]))
    if len(words) < 2:
        return {}
    found = input_embeddings(model).weight.detach().float().cpu()[torch.tensor(list(words.values()))]  # [V, D]
    found = torch.nn.functional.normalize(found - found.mean(dim=0), dim=1)
    names = list(words)
    most = min(_NEIGHBOURS, len(names) - 1)
    table: dict[str, tuple[str, ...]] = {}
    block = max(1, _BLOCK_FLOATS // len(names))
    for start in range(0, len(names), block):
        near = found[start : start + block] @ found.T  # [B, V]
        rows = torch.arange(len(near))
        near[rows, start + rows] = -2.0  # not the word itself
        for row, best in enumerate(near.topk(most, dim=1).indices.tolist()):
            table[names[start + row]] = tuple(names[at] for at in best)
    return table


def from_wordnet(counts: Iterable[str]) -> Table:
    """The other lemmas of all synsets of each word, those of its commonest sense first (as in EDA), 8 at most."""
    wordnet = _wordnet()
    entries: dict[str, list[str]] = {}
    for word in {word.lower() for word in counts}:
        lemmas = (lemma.replace("_", " ") for synset in wordnet.synsets(word) for lemma in synset.lemma_names())
        entries[word] = [lemma for lemma in dict.fromkeys(lemmas) if lemma.lower() != word][:_NEIGHBOURS]
    return _tidied(entries)


def _whole_words(counts: Mapping[str, int], tokenizer: Tokenizer) -> dict[str, int]:
    """The words that are a single token, in lower case, with their ids; the most frequent of those that share one."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    words = sorted(counts, key=lambda word: (-counts[word], word))
    unknown = tokenizer.encode("\ufdd1", add_special_tokens=False).ids  # a noncharacter, which no tokenizer knows
    found: dict[str, int] = {}
    taken: set[int] = set(unknown)
    # with a space before it, since many tokenizers have a token of its own for a word within a text
    for word, encoding in zip(
        words, tokenizer.encode_batch_fast([f" {word}" for word in words], add_special_tokens=False), strict=True
    ):
        ids = encoding.ids
        if len(ids) == 1 and ids[0] not in taken and word.lower() not in found and not word.isnumeric():
            taken.add(ids[0])
            found[word.lower()] = ids[0]
    return found


def _path(where: str) -> Path:
    path = expand(where)
    if not path.is_file():
        raise UserError(
            f"no thesaurus at {path} (fit.augment.synonyms = '{where}')",
            f"expected a file, '{EMBEDDINGS}' or '{WORDNET}'; paths count from the working directory, {Path.cwd()}",
        )
    return path


def _of_lines(content: str) -> dict[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        word, tab, others = line.partition("\t")
        if not tab and line.strip():
            raise ValueError(f"line {number} has no tab")
        entries.setdefault(word.strip(), []).extend(others.split(","))
    return entries


def _of_json(content: str) -> dict[str, list[str]]:
    entries: Any = json.loads(content)
    good = isinstance(entries, dict) and all(
        isinstance(others, list) and all(isinstance(other, str) for other in others) for others in entries.values()
    )
    if not good:
        raise ValueError("it is not an object of lists of strings")
    return dict(entries)


def _tidied(entries: Mapping[str, Iterable[str]]) -> Table:
    """In lower case, sorted by word, "Good" and "good" as one, without empty entries and a word as its own synonym."""
    table: dict[str, tuple[str, ...]] = {}
    for word in sorted(entries):
        lower = word.lower()
        others = [*table.get(lower, ()), *(other.strip() for other in entries[word])]
        kept = tuple(other for other in dict.fromkeys(others) if other and other.lower() != lower)
        if word and kept:
            table[lower] = kept
    return table


def _wordnet() -> Any:
    try:
        from nltk.corpus import wordnet
    except ImportError:
        raise UserError(
            "fit.augment.synonyms = 'wordnet' needs nltk, which is not installed", _INSTALL_WORDNET
        ) from None
    try:
        wordnet.ensure_loaded()
    except LookupError:
        what = "fit.augment.synonyms = 'wordnet': nltk has no WordNet data on this machine"
        raise UserError(what, _INSTALL_WORDNET) from None
    except Exception as error:  # whatever its reader meets in files that are not whole
        what = f"fit.augment.synonyms = 'wordnet': nltk's WordNet data cannot be read: {said(error)}"
        raise UserError(what, _INSTALL_WORDNET) from None
    return wordnet
