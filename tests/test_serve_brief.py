"""Which requests are short, and when short ones are brief."""

from __future__ import annotations

import pytest

from serve.brief import MOST_BYTES, MOST_S, Brief, is_short_text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": ["a good film"], "top_k": 2}', True),
        (b'{"inputs": ["a"]' + b" " * MOST_BYTES + b"}", False),
        (b'{"inputs": ["a", "b", "c", "d"]}', False),
        (b"", True),
    ],
)
def test_one_text_of_some_sentences_is_short(body: bytes, expected: bool) -> None:
    assert is_short_text(body) is expected


def test_nothing_is_known_before_the_first() -> None:
    brief = Brief("text", possible=True)
    assert not brief.likely
    brief.took(MOST_S / 2)
    assert brief.likely


def test_one_slow_answer_is_let_pass_and_two_are_not() -> None:
    brief = Brief("text", possible=True)
    found = []
    for took in (1.0, 0.5, 2.0, 0.5, 2.0, 2.0, 0.5):
        brief.took(took * MOST_S)
        found.append(brief.likely)
    assert found == [True, True, True, True, True, False, True]


def test_where_it_cannot_be_it_never_is() -> None:
    brief = Brief("image", possible=False)
    brief.took(0.0)
    assert not brief.likely
