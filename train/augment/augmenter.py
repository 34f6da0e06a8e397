"""Builds what text augmentation needs, once before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.lexicon import Lexicon, read_lexicon
from train.augment.masks import MaskingPreparer
from train.augment.phonetics import check_homophones, homophone_table
from train.augment.saliency import Salience
from train.augment.synonyms import EMBEDDINGS, check_synonyms, fingerprint, synonym_table
from train.augment.texts import Resources, TextAugment, TextAugmenter
from train.classifier import Classifier
from train.inputs import Inputs, TextInputs

_CHUNK = 1000
_DRAW_FROM_TEXTS = ("insert", "character_insert", "character_replace", "synonym", "homophone")


def text_augmenter(
    config: AugmentConfig,
    train: Inputs,
    teacher: Classifier | None,
    own: Classifier,
    seed: int,
    say: Callable[[str], None],
    others: Sequence[Classifier] = (),
) -> TextAugmenter | None:
    """What makes views of the training texts for `own` and its teacher; None where nothing is asked for, or of images.

    `others` see the views too, and have no part in making them.
    `say` hears of what was built, and of what will do nothing. Raises UserError for what cannot be had.
    """
    if not isinstance(train, TextInputs) or not config.is_active:
        return None
    if config.case and (why := _why_case_does_nothing(train, own)):
        say(f"fit.augment.case does nothing: {why}")
    lexicon: Lexicon | None = None
    if any(getattr(config, name) for name in _DRAW_FROM_TEXTS):
        lexicon = read_lexicon(text for texts in _chunks(train) for text in texts)
    resources = Resources(
        lexicon=lexicon,
        synonyms=_synonyms(config, lexicon, teacher, own, say) if config.synonym and lexicon else {},
        homophones=_homophones(lexicon, say) if config.homophone and lexicon else {},
        texts=train if config.splice else None,
        ranks=_ranks(train, teacher, say) if config.mask_salient else (),
        masking=_masking([own, *([teacher] if teacher else []), *others]) if config.mask_salient else {},
    )
    return TextAugmenter(config, seed, resources)


def check_augmentation(config: TextAugment) -> None:
    """Raise UserError for a library or a file that is missing, before anything is trained."""
    if config.synonym:
        check_synonyms(config.synonyms)
    if config.homophone:
        check_homophones()


def asks_the_teacher(config: TextAugment) -> bool:
    """Whether views depend on the teacher, also those of a control."""
    return bool(config.mask_salient or (config.synonym and config.synonyms == EMBEDDINGS))


def origin(config: TextAugment) -> dict[str, str]:
    """What the views depend on besides: the content of a thesaurus."""
    found = fingerprint(config.synonyms) if config.synonym else None
    return {} if found is None else {"thesaurus": found}


def _synonyms(
    config: TextAugment, lexicon: Lexicon, teacher: Classifier | None, own: Classifier, say: Callable[[str], None]
) -> dict[str, tuple[str, ...]]:
    model = teacher or own
    if config.synonyms == EMBEDDINGS and teacher is None and own.spec.network.source == "builtin":
        raise UserError(
            f"fit.augment.synonyms = '{EMBEDDINGS}' needs trained word embeddings, and those of '{own.spec.model}' are "
            "new",
            'name a thesaurus file, or take synonyms = "wordnet"',
        )
    table = dict(synonym_table(config.synonyms, lexicon.counts, model))
    say(f"synonyms for {_known(lexicon, table):.0%} of the words of the training texts")
    return table


def _homophones(lexicon: Lexicon, say: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    table = dict(homophone_table(lexicon.counts))
    say(f"homophones for {_known(lexicon, table):.0%} of the words of the training texts")
    return table


def _known(lexicon: Lexicon, table: dict[str, tuple[str, ...]]) -> float:
    """The share of the running words that the table knows."""
    total = sum(lexicon.counts.values())
    return sum(count for word, count in lexicon.counts.items() if word.lower() in table) / max(total, 1)


def _ranks(train: TextInputs, teacher: Classifier | None, say: Callable[[str], None]) -> list[np.ndarray]:
    if teacher is None:
        raise UserError(
            "fit.augment.mask_salient masks what the teacher does not decide by, and here is no teacher",
            "set it on a student, or leave it out",
        )
    say(f"asking the teacher which words of {len(train):,} texts it decides by")
    salience = Salience(teacher)
    return [ranks for texts in _chunks(train) for ranks in salience.ranks(texts)]


def _masking(models: Sequence[Classifier]) -> dict[str, MaskingPreparer]:
    return {model.preparer().fingerprint(): MaskingPreparer(model) for model in models}


def _chunks(train: TextInputs) -> Iterator[list[str]]:
    for at in range(0, len(train), _CHUNK):
        yield train.texts(np.arange(at, min(at + _CHUNK, len(train))))


def _why_case_does_nothing(train: TextInputs, own: Classifier) -> str:
    """Whether a text in capitals is the same to the tokenizer, tried on some: why, or nothing."""
    texts = [text for text in train.texts(np.arange(min(len(train), 100))) if text.upper() != text.lower()]
    if not texts:
        return "the training texts have no letters with capitals"
    # other letters in capitals, such as SS for the German sharp s, say nothing of case
    texts = [text for text in texts if text.upper().lower() == text.lower()]
    upper, lower = (train.tokenize([change(text) for text in texts]) for change in (str.upper, str.lower))
    alike = bool(texts) and np.array_equal(upper, lower)
    return f"the tokenizer of '{own.spec.model}' makes all letters lower case" if alike else ""
