from __future__ import annotations

import pytest

from compress.init.columns import guess_columns
from serve.errors import UserError

TEXTS = [f"sentence number {at} about something" for at in range(40)]
LABELS = ["good", "bad"] * 20
IDS = [str(at) for at in range(40)]


def test_columns_go_by_name_whatever_their_order() -> None:
    text, label = guess_columns({"id": IDS, "Sentiment": LABELS, "Review": TEXTS})
    assert (text.column, label.column) == ("Review", "Sentiment")
    assert label.why == "by its name; 2 different values in the first 40 rows"


def test_columns_without_telling_names_go_by_content() -> None:
    text, label = guess_columns({"1": IDS, "2": TEXTS, "3": LABELS})
    assert (text.column, label.column) == ("2", "3")
    assert "longest cells" in text.why
    assert "shortest cells" in label.why


def test_a_column_called_text_that_holds_a_word_is_not_the_text() -> None:
    text, _ = guess_columns({"title": ["a"] * 40, "words": TEXTS, "label": LABELS})
    assert text.column == "words"


def test_a_label_that_looks_like_a_number_is_a_label() -> None:
    _, label = guess_columns({"text": TEXTS, "stars": ["1", "5"] * 20})
    assert label.column == "stars"


def test_a_column_of_one_value_is_no_label_while_there_is_a_better_one() -> None:
    _, label = guess_columns({"a": ["x"] * 40, "b": LABELS, "c": TEXTS})
    assert label.column == "b"


def test_no_label_and_no_second_column_are_told() -> None:
    with pytest.raises(UserError, match="no column looks like a label"):
        guess_columns({"a": IDS, "b": TEXTS})
    with pytest.raises(UserError, match="one column only: 'a'"):
        guess_columns({"a": IDS})
