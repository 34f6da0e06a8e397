"""Synonyms from WordNet, through nltk, of a tiny database in the format of the real one (wndb(5WN))."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.augmenter import check_augmentation
from train.augment.synonyms import check_synonyms, from_wordnet

nltk = pytest.importorskip("nltk", reason='nltk is not installed: pip install "limbeck[wordnet]"')

LICENCE = "  1 This software and database is in the form of WordNet 3.0 Copyright 2006 by Princeton University.\n"
PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# The words of each synset, the commonest sense of a word first
SYNSETS = {
    "noun": [["movie", "film", "motion_picture"], ["film", "plastic_film"], ["child", "kid"]],
    "verb": [["film", "shoot"]],
    "adj": [["good"], ["good", "honorable", "estimable"]],
    "adv": [["well", "good"]],
}


def data_line(at: int, part: str, words: list[str]) -> str:
    frames = "00 " if part == "verb" else ""
    listed = " ".join(f"{word} 0" for word in words)
    return f'{at:08d} 00 {PARTS[part]} {len(words):02x} {listed} 000 {frames}| a gloss; "an example"  \n'


def write_database(folder: Path) -> None:
    """index.* and data.* with offsets in bytes, and the other files that go with them."""
    folder.mkdir(parents=True)
    for part, synsets in SYNSETS.items():
        data, places = LICENCE, {}
        for words in synsets:
            for word in words:
                places.setdefault(word, []).append(len(data))
            data += data_line(len(data), part, words)
        (folder / f"data.{part}").write_text(data)
        lines = (
            f"{word} {PARTS[part]} {len(found)} 0 {len(found)} 0 {' '.join(f'{at:08d}' for at in found)}  \n"
            for word, found in sorted(places.items())
        )
        (folder / f"index.{part}").write_text(LICENCE + "".join(lines))
        (folder / f"{part}.exc").write_text("children child\n" if part == "noun" else "")
    (folder / "lexnames").write_text("00\tnoun.Tops\t1\n")
    for name in ("cntlist.rev", "index.sense"):
        (folder / name).write_text("")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nltk looks for its data, and a reader that has not looked yet."""
    from nltk.corpus.reader import CorpusReader, WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    other_languages = LazyCorpusLoader("omw-2.0", CorpusReader, r".*\.tab")  # which nobody asks for
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, other_languages))
    return tmp_path


def test_synonyms_are_the_other_words_of_all_synsets_the_commonest_sense_first(data: Path) -> None:
    write_database(data / "corpora" / "wordnet")
    check_synonyms("wordnet")
    assert from_wordnet(["film", "Good", "children", "unheard-of"]) == {
        "film": ("movie", "motion picture", "plastic film", "shoot"),
        "good": ("honorable", "estimable", "well"),
        "children": ("child", "kid"),
    }


def test_nltk_without_wordnet_is_refused_before_training(data: Path) -> None:
    with pytest.raises(UserError, match="nltk has no WordNet data on this machine") as refused:
        check_augmentation(AugmentConfig(synonym=0.1, synonyms="wordnet"))
    assert "python -m nltk.downloader wordnet" in refused.value.hint


def test_a_broken_database_is_refused_before_training(data: Path) -> None:
    write_database(data / "corpora" / "wordnet")
    (data / "corpora" / "wordnet" / "index.noun").unlink()
    with pytest.raises(UserError, match="nltk's WordNet data cannot be read: No such file") as refused:
        check_synonyms("wordnet")
    assert "nltk.downloader wordnet" in refused.value.hint
