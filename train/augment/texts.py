"""Text augmentation: each view of a text is another text, which is then tokenized as a request would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.errors import SettingError
from train.augment import characters, words
from train.augment.draws import generator
from train.augment.lexicon import Lexicon
from train.augment.replacements import Table, replace
from train.augment.units import Unit, is_masked, join, split

if TYPE_CHECKING:
    from train.augment.masks import MaskingPreparer
    from train.inputs import TextInputs


class TextAugment(BaseModel):
    """The part of `fit.augment` that is for texts: of the words to which it can happen, the share to which it does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delete: float = Field(default=0.0, ge=0, lt=1)
    swap: float = Field(default=0.0, ge=0, lt=1)  # with the word that follows
    insert: float = Field(default=0.0, ge=0, lt=1)  # another word after it
    insert_from: words.InsertFrom = "vocabulary"  # as often as in the training texts; "neighbour": a copy of one near
    shuffle: float = Field(default=0.0, ge=0, le=1)  # of the texts
    shuffle_window: int = Field(default=3, ge=0)  # places that a word moves at most; 0: any number
    case: float = Field(default=0.0, ge=0, le=1)  # lower, UPPER or Capitalised
    # one character of a word each
    character_delete: float = Field(default=0.0, ge=0, le=1)
    character_swap: float = Field(default=0.0, ge=0, le=1)
    character_insert: float = Field(default=0.0, ge=0, le=1)
    character_replace: float = Field(default=0.0, ge=0, le=1)
    synonym: float = Field(default=0.0, ge=0, le=1)
    synonyms: str = "embeddings"  # the teacher's, or a teacher's own; "wordnet"; or a path to a thesaurus
    homophone: float = Field(default=0.0, ge=0, le=1)
    # These two cut texts so that only a teacher can say what class they are of: for distilled students.
    span: float = Field(default=0.0, ge=0, le=1)  # the share of the texts of which a run of the words is left
    span_least: float = Field(default=0.2, gt=0, le=1)  # of the words
    splice: float = Field(default=0.0, ge=0, le=1)  # the share of the texts that end as another one does
    mask_salient: float = Field(default=0.0, ge=0, le=0.5)  # the less the teacher decides by a word, the more readily

    # how, not how much
    SETTINGS: ClassVar[tuple[str, ...]] = ("insert_from", "shuffle_window", "synonyms", "span_least")
    _OF: ClassVar[tuple[str, ...]] = ("insert", "shuffle", "synonym", "span")
    CUTTING: ClassVar[tuple[str, ...]] = ("span", "span_least", "splice")

    @model_validator(mode="after")
    def _no_setting_of_what_does_not_happen(self) -> Self:
        fields = TextAugment.model_fields
        for name, whose in zip(self.SETTINGS, self._OF, strict=True):
            if getattr(self, name) != fields[name].default and not getattr(self, whose):
                raise SettingError(
                    f"{name} goes with {whose}, which is not asked for", f"set {whose}, or leave this out"
                )
        return self

    @property
    def cuts(self) -> bool:
        """Whether some views are of a class that no label says."""
        return bool(self.span or self.splice)


@dataclass(frozen=True)
class Resources:
    """What is built once before training, as far as the config asks for it."""

    lexicon: Lexicon | None = None
    synonyms: Table = field(default_factory=dict)
    homophones: Table = field(default_factory=dict)
    texts: TextInputs | None = None  # of the training split
    ranks: Sequence[np.ndarray] = ()  # for each training text, of each of its words: saliency.Salience
    masking: Mapping[str, MaskingPreparer] = field(default_factory=dict)  # by the fingerprint of who tokenizes else


class TextAugmenter:
    """Makes views of the training texts."""

    def __init__(self, config: TextAugment, seed: int, resources: Resources) -> None:
        self.config, self._seed, self._resources = config, seed, resources

    def view(self, text: str, epoch: int, index: int) -> str:
        """The text that is item `index` of the training split as `epoch` sees it; never an empty one.

        It depends on (seed, epoch, index) and the config alone. `units.MASK` stands for a masked word.
        """
        return self.see(text, epoch, index)[0]

    def see(self, text: str, epoch: int, index: int) -> tuple[str, bool]:
        """`view`, and whether the text's label still holds: not where it was cut."""
        units = split(text)
        if not units:
            return text, True
        draw = generator(self._seed, epoch, index)
        changed = self._moved(self._changed(units, index, draw), draw)
        whole, changed = changed, self._cut(changed, draw)
        if not any(unit.word.strip() and not is_masked(unit) for unit in changed):
            return text, True  # nothing to read is left: masked words alone, or control characters
        return (text if changed == units else join(changed)), changed == whole

    def tokenize(self, texts: list[str], inputs: TextInputs) -> np.ndarray:
        """Views as ids int64 [N, L], as `inputs` tokenizes."""
        masking = self._resources.masking.get(inputs.fingerprint())
        return inputs.tokenize(texts) if masking is None else masking.tokenize(texts)

    def _changed(self, units: list[Unit], index: int, draw: np.random.Generator) -> list[Unit]:
        """With other words in the same places."""
        config, known = self.config, self._resources
        if config.mask_salient:
            units = words.mask(units, config.mask_salient, known.ranks[index], draw)
        if config.synonym:
            units = replace(units, config.synonym, known.synonyms, draw)
        if config.homophone:
            units = replace(units, config.homophone, known.homophones, draw)
        if config.case:
            units = words.change_case(units, config.case, draw)
        if config.character_delete:
            units = characters.delete(units, config.character_delete, draw)
        if config.character_swap:
            units = characters.swap(units, config.character_swap, draw)
        if config.character_insert:
            units = characters.insert(units, config.character_insert, _there(known.lexicon).letters, draw)
        if config.character_replace:
            units = characters.replace(units, config.character_replace, _there(known.lexicon).letters, draw)
        return units

    def _cut(self, units: list[Unit], draw: np.random.Generator) -> list[Unit]:
        """With another text's end, and without what stands before and after a run of the words."""
        config = self.config
        if config.splice and draw.random() < config.splice:
            units = words.splice(units, self._another(draw), draw)
        if config.span:
            units = words.span(units, config.span, config.span_least, draw)
        return units

    def _another(self, draw: np.random.Generator) -> list[Unit]:
        """One of the training texts, as it was written."""
        texts = self._resources.texts
        assert texts is not None, "this takes the training texts: build the augmenter with text_augmenter"
        return split(texts.texts(np.array([draw.integers(len(texts))]))[0])

    def _moved(self, units: list[Unit], draw: np.random.Generator) -> list[Unit]:
        """With words more, words less, and words in other places."""
        config = self.config
        if config.insert:
            pick = None if config.insert_from == "neighbour" else _there(self._resources.lexicon).pick
            units = words.insert(units, config.insert, pick, draw)
        if config.delete:
            units = words.delete(units, config.delete, draw)
        if config.swap:
            units = words.swap(units, config.swap, draw)
        if config.shuffle:
            units = words.shuffle(units, config.shuffle, config.shuffle_window, draw)
        return units


def _there(lexicon: Lexicon | None) -> Lexicon:
    assert lexicon is not None, "this draws from the training texts: build the augmenter with text_augmenter"
    return lexicon
