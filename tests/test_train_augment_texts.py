"""What text augmentation does to words and characters, in scripts with and without spaces."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from train.augment import AugmentConfig
from train.augment.lexicon import read_lexicon
from train.augment.texts import Resources, TextAugmenter
from train.augment.units import MASK, Unit, characters, core, join, split
from train.augment.words import mask

ENGLISH = "the quick brown fox jumps over that lazy dog while seven small birds sing loudly outside each morning"
CHINESE = "这部电影非常好看我很喜欢里面的音乐和演员"
THAI = "ภาพยนตร์เรื่องนี้ดีมาก"
MIXED = "我喜欢iPhone手机。 it is naïve 👨‍👩‍👧 e\u0301te\u0301 👍🏽!"
TEXTS = (ENGLISH, CHINESE, THAI, MIXED)
CHARACTER_SHARES = ("character_delete", "character_swap", "character_insert", "character_replace")
TABLE = {"film": ("movie", "picture"), "好": ("佳",)}
ITEMS = 400


def augmenter(seed: int = 1, **config: object) -> TextAugmenter:
    resources = Resources(lexicon=read_lexicon(TEXTS), synonyms=TABLE, homophones={"no": ("know",)})
    return TextAugmenter(AugmentConfig(**config), seed, resources)  # type: ignore[arg-type]


def views(text: str, **config: object) -> list[str]:
    maker = augmenter(**config)
    return [maker.view(text, 0, index) for index in range(ITEMS)]


def words(text: str) -> list[str]:
    return [unit.word for unit in split(text)]


def is_about(count: int, trials: int, share: float) -> bool:
    """Within four standard deviations of the binomial distribution."""
    return abs(count - trials * share) <= 4 * np.sqrt(trials * share * (1 - share))


def is_in_order(some: list[str], all_: list[str]) -> bool:
    rest = iter(all_)
    return all(word in rest for word in some)


@pytest.mark.parametrize("text", [*TEXTS, "a", "!", "我", "ดี", "(film)."])
def test_words_together_are_the_text(text: str) -> None:
    assert join(split(text)) == text


def test_words_are_those_between_spaces_or_single_characters() -> None:
    assert words(MIXED)[:8] == ["我", "喜", "欢", "iPhone", "手", "机", "。", "it"]
    assert words("コーヒーが好き") == list("コーヒーが好き")
    assert words("ดีมาก") == ["ดี", "ม", "า", "ก"]  # a vowel mark stays on its consonant
    assert words("안녕하세요 세계") == ["안녕하세요", "세계"]
    assert [core(word) for word in ("(film).", "don't", "❤️", "good❤️", "e\u0301")] == [
        ("(", "film", ")."),
        ("", "don't", ""),
        ("❤️", "", ""),
        ("", "good", "❤️"),
        ("", "e\u0301", ""),
    ]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, THAI])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_words_that_is_deleted(text: str, share: float) -> None:
    before = words(text)
    left = [words(view) for view in views(text, delete=share)]
    assert is_about(sum(len(before) - len(after) for after in left), ITEMS * len(before), share)
    assert all(is_in_order(after, before) for after in left)
    gone = Counter(word for after in left for word in (Counter(before) - Counter(after)).elements())
    assert min(gone[word] for word in before) > 0  # none is spared


def test_the_share_of_words_that_changes_places_with_the_next() -> None:
    swapped = [view == "dog lazy" for view in views("lazy dog", swap=0.3)]
    assert is_about(sum(swapped), ITEMS, 0.3)
    assert set(views("好看", swap=0.3)) == {"好看", "看好"}
    assert all(sorted(words(view)) == sorted(words(ENGLISH)) for view in views(ENGLISH, swap=0.5))


def test_the_share_of_words_after_which_one_is_inserted_and_how_often_each() -> None:
    resources = Resources(lexicon=read_lexicon(["often often often, seldom"]))
    maker = TextAugmenter(AugmentConfig(insert=0.2), 1, resources)
    made = [maker.view(ENGLISH, 0, index) for index in range(ITEMS)]
    added = Counter(word for view in made for word in words(view) if word in ("often", "seldom"))
    count = len(words(ENGLISH))
    assert is_about(added.total(), ITEMS * count, 0.2)
    assert is_about(added["often"], added.total(), 0.75)
    assert all([word for word in words(view) if word not in added] == words(ENGLISH) for view in made)


def test_a_copy_of_a_neighbour_is_inserted_where_the_recipe_says_so() -> None:
    made = views(ENGLISH, insert=0.2, insert_from="neighbour")
    before = words(ENGLISH)
    extra = 0
    for view in made:
        after = words(view)
        extra += len(after) - len(before)
        assert set(after) == set(before)
        places = {word: [at for at, other in enumerate(after) if other == word] for word in set(before)}
        assert all(max(found) - min(found) <= 4 for found in places.values())
    assert is_about(extra, ITEMS * len(before), 0.2)


def test_the_share_of_texts_that_is_shuffled_and_how_far_words_move() -> None:
    before = words(ENGLISH)
    for window, far in ((3, 3), (0, len(before) - 1)):
        made = [words(view) for view in views(ENGLISH, shuffle=0.4, shuffle_window=window)]
        assert is_about(sum(after != before for after in made), ITEMS, 0.4)
        moved = [abs(after.index(word) - at) for after in made for at, word in enumerate(before)]
        assert max(moved) == far
    assert all(" " not in view for view in views(CHINESE, shuffle=1.0))


def test_the_share_of_words_in_another_case() -> None:
    text = "The film IS good 我 42 ."
    made = [words(view) for view in views(text, case=0.5)]
    for at, word in enumerate(words(text)):
        changed = [after[at] for after in made if after[at] != word]
        assert {other.lower() for other in changed} <= {word.lower()}
        assert is_about(len(changed), ITEMS, 0.5) if word.lower() != word.upper() else not changed
    assert {after[1] for after in made} == {"film", "FILM", "Film"}


@pytest.mark.parametrize("name", CHARACTER_SHARES)
def test_the_share_of_words_with_a_typing_error_and_which(name: str) -> None:
    before = words(ENGLISH)
    maker = TextAugmenter(AugmentConfig(**{name: 0.3}), 1, Resources(lexicon=read_lexicon([ENGLISH])))
    made = [words(maker.view(ENGLISH, 0, index)) for index in range(ITEMS)]
    pairs = [(old, new) for after in made for old, new in zip(before, after, strict=True) if old != new]
    assert is_about(len(pairs), ITEMS * len(before), 0.3)
    for old, new in pairs:
        assert len(new) == len(old) + {"character_delete": -1, "character_insert": 1}.get(name, 0)
        if name == "character_delete":
            assert new in {old[:at] + old[at + 1 :] for at in range(len(old))}
        elif name == "character_insert":
            assert old in {new[:at] + new[at + 1 :] for at in range(len(new))}
        elif name == "character_swap":
            first = next(at for at in range(len(old)) if old[at] != new[at])
            assert old[:first] + old[first + 1] + old[first] + old[first + 2 :] == new
        else:
            assert sum(one != other for one, other in zip(old, new, strict=True)) == 1


@pytest.mark.parametrize("name", CHARACTER_SHARES)
def test_letters_come_from_the_same_script_and_signs_stay(name: str) -> None:
    latin = {letter for letter in characters(ENGLISH + MIXED) if letter.isascii() or letter in ("ï", "e\u0301")}
    others = {letter for letter in characters(CHINESE + MIXED) if letter not in latin}
    for view in views(MIXED, **{name: 1.0}):
        for kept in ("👨‍👩‍👧", "👍🏽!", "。"):
            assert kept in view  # whole
        mixed, *rest = view.split()
        assert set(characters(mixed)) <= latin | others
        assert all(set(characters(rest[at])) <= latin for at in (0, 1, 2, 4))
        assert not any(character.startswith("\u0301") for character in characters(view))


def test_a_single_letter_is_never_lost() -> None:
    assert set(views("a I 我 .", character_delete=1.0, character_swap=1.0)) == {"a I 我 ."}
    assert set(views("我", character_replace=1.0)) <= set(CHINESE + MIXED) - {"我"}


@pytest.mark.parametrize("name", CHARACTER_SHARES)
def test_an_emoji_that_begins_with_a_digit_is_no_digit(name: str) -> None:
    keycaps = "2\ufe0f\u20e3 3\ufe0f\u20e31\ufe0f\u20e3"
    maker = TextAugmenter(AugmentConfig(**{name: 1.0}), 1, Resources(lexicon=read_lexicon([keycaps, "12 34"])))
    assert {maker.view(keycaps, 0, index) for index in range(50)} == {keycaps}
    digits = {maker.view("12 34", 0, index) for index in range(50)}
    assert digits != {"12 34"}
    assert all(view.replace(" ", "").isdigit() for view in digits)


@pytest.mark.parametrize("text", ["end" + " " * 20_000, "a" + "-" * 10_000 + "b", " " * 20_000, "word " * 20_000])
def test_time_grows_with_the_length_of_a_text_and_not_with_its_square(text: str) -> None:
    started = time.process_time()
    assert join(split(text)) == text.strip()
    for unit in split(text)[:1]:
        assert "".join(core(unit.word)) == unit.word
    assert time.process_time() - started < 2


def test_synonyms_keep_case_and_signs_and_happen_to_their_share_of_known_words() -> None:
    made = views("Film FILM (film), 好 dog", synonym=0.4)
    changed = Counter()
    for view in made:
        first, second, third, fourth, last = words(view)
        assert first in ("Film", "Movie", "Picture")
        assert second in ("FILM", "MOVIE", "PICTURE")
        assert third in ("(film),", "(movie),", "(picture),")
        assert (fourth in "好佳", last) == (True, "dog")
        changed[first != "Film"] += 1
    assert is_about(changed[True], ITEMS, 0.4)
    assert {view.split()[0] for view in made} == {"Film", "Movie", "Picture"}


def test_homophones_are_replaced_too() -> None:
    assert is_about(views("no", homophone=0.5).count("know"), ITEMS, 0.5)


def test_words_are_masked_the_more_readily_the_less_salient_they_are() -> None:
    units, ranks = split("a b c d"), np.array([2, 0, 3, 1], dtype=np.uint32)
    hits = np.zeros(4)
    for index in range(4000):
        after = mask(units, 0.3, ranks, np.random.default_rng(index))
        hits += [unit.word == MASK for unit in after]
    for rank, count in zip(ranks, hits, strict=True):
        assert is_about(int(count), 4000, 0.3 * (2 * rank + 1) / 4)
    for index in range(200):
        after = mask(split("a b"), 0.5, np.array([1, 0]), np.random.default_rng(index))
        assert after[1].word == "b" or after[0].word != MASK  # one is left


def test_masks_stay_words_of_their_own_where_there_are_no_spaces() -> None:
    units = [Unit(gap, MASK if word in "喜欢" else word) for gap, word in split("我喜欢iPhone")]
    assert words(join(units)) == ["我", MASK, MASK, "iPhone"]
    assert join(units) == f"我{MASK}{MASK}iPhone"


WORD_SHARES = ("shuffle", "case", "synonym", "homophone", *CHARACTER_SHARES)
EVERYTHING = dict.fromkeys(WORD_SHARES, 1.0) | {"delete": 0.9, "swap": 0.9, "insert": 0.3}


@pytest.mark.parametrize("text", [*TEXTS, "a", "!", " film ", "我", "👍🏽", "no .", "1"])
def test_no_view_is_empty(text: str) -> None:
    for config in ({"delete": 0.999}, EVERYTHING):
        maker = augmenter(**config)
        assert all(maker.view(text, 0, index).strip() for index in range(100))


def test_a_text_of_which_all_but_one_word_is_masked_keeps_that_word() -> None:
    resources = Resources(ranks=[np.array([0, 1, 2], dtype=np.uint32)])
    maker = TextAugmenter(AugmentConfig(mask_salient=0.5, delete=0.9), 1, resources)
    made = [maker.view("a b c", epoch, 0) for epoch in range(ITEMS)]
    assert all(set(words(view)) - {MASK} for view in made)
    assert any(MASK in view for view in made)


def test_a_view_depends_on_seed_epoch_and_index_alone() -> None:
    config = {**EVERYTHING, "delete": 0.2}
    once = augmenter(**config)
    expected = [once.view(ENGLISH, 3, index) for index in range(50)]
    again = augmenter(**config)
    assert [again.view(ENGLISH, 3, index) for index in reversed(range(50))] == expected[::-1]
    for seed, epoch, shift in ((2, 3, 0), (1, 4, 0), (1, 3, 50)):
        other = augmenter(seed, **config)
        made = [other.view(ENGLISH, epoch, index + shift) for index in range(50)]
        assert sum(one == two for one, two in zip(made, expected, strict=True)) == 0


def test_without_augmentation_a_text_is_as_it_was_written() -> None:
    for text in (*TEXTS, "two  spaces\nand a line ", " "):
        assert set(views(text)) == set(views(text, delete=1e-12)) == {text}


def test_what_is_not_asked_for_leaves_no_trace_in_a_recipe() -> None:
    assert AugmentConfig(swap=0.1).model_dump() == {"shift": 0, "flip": False, "delete": 0.0, "swap": 0.1}
    asked = AugmentConfig(synonym=0.1, synonyms="words.tsv")
    assert asked.model_dump(mode="json")["synonyms"] == "words.tsv"
    assert AugmentConfig.model_validate(asked.model_dump(mode="json")) == asked
    assert AugmentConfig(synonym=0.1).is_active
    assert AugmentConfig(synonym=0.1, case=0.1).unfit_for("image") == ["case", "synonym"]


@pytest.mark.parametrize(
    ("setting", "whose"),
    [
        ({"insert_from": "neighbour"}, "insert"),
        ({"shuffle_window": 0}, "shuffle"),
        ({"synonyms": "words.tsv"}, "synonym"),
        ({"span_least": 0.5}, "span"),
    ],
)
def test_how_something_is_done_that_is_not_done_is_refused(setting: dict[str, object], whose: str) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(setting))} goes with {whose}, which is not asked for"):
        AugmentConfig.model_validate(setting)
    AugmentConfig.model_validate({**setting, whose: 0.1})


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_span_is_a_run_of_the_words_of_any_length_from_the_least_on(text: str) -> None:
    before = words(text)
    left = [words(view) for view in views(text, span=1.0, span_least=0.25)]
    starts = Counter(start for after in left for start in range(len(before)) if before[start:][: len(after)] == after)
    assert sum(starts.values()) == ITEMS  # the words of these texts differ, so a run stands in one place
    lengths = Counter(len(after) for after in left)
    assert (min(lengths), max(lengths)) == (round(0.25 * len(before)), len(before))
    assert len(starts) > len(before) / 2
    assert is_about(sum(view != text for view in views(text, span=0.5, span_least=0.9)), ITEMS, 0.5 * (1 - 1 / 3))


def test_a_splice_begins_as_the_text_and_ends_as_another_and_is_no_longer() -> None:
    others = ["one two three four five", "six nine"]
    maker = TextAugmenter(AugmentConfig(splice=1.0), 1, Resources(texts=_Texts(others)))  # type: ignore[arg-type]
    before = words(ENGLISH)
    tails = set()
    for index in range(ITEMS):
        after = words(maker.view(ENGLISH, 0, index))
        kept = next((at for at, word in enumerate(after) if word not in before), len(after))
        assert kept >= 1
        assert after[:kept] == before[:kept]
        assert any(other.endswith(" ".join(after[kept:])) for other in others)
        assert len(after) <= len(before)
        tails.add(" ".join(after[kept:]))
    assert {"one two three four five", "six nine"} <= tails
    assert "" not in tails
    assert maker.see("word", 0, 0) == ("word", True)


def test_a_text_that_was_cut_has_lost_its_label_and_no_other_has() -> None:
    maker = augmenter(span=0.5, swap=0.5)
    seen = [maker.see(ENGLISH, 0, index) for index in range(ITEMS)]
    whole = sorted(words(ENGLISH))
    assert all(labelled == (sorted(words(view)) == whole) for view, labelled in seen)
    assert 0 < sum(labelled for _, labelled in seen) < ITEMS


class _Texts:
    """A training split, as far as a splice asks for it."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def texts(self, rows: np.ndarray) -> list[str]:
        return [self._texts[row] for row in rows]
