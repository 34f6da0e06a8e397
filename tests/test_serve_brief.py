"""Which requests are short, and when short ones are brief."""

from __future__ import annotations

import pytest

from serve.brief import MOST_BYTES, MOST_S, Brief, is_short_text

BODY = b'{"inputs": ["a good film"], "top_k": 2}'


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
    assert not brief.ever
    assert not brief.likely(BODY)
    brief.took(len(BODY), MOST_S / 2)
    assert brief.ever
    assert brief.likely(BODY)
    assert not brief.likely(BODY.replace(b" ", b'"'))  # as long, and more than one text


def test_one_slow_answer_is_let_pass_and_two_are_not() -> None:
    brief = Brief("text", possible=True)
    found = []
    for took in (1.0, 0.5, 2.0, 0.5, 2.0, 2.0, 0.5):
        brief.took(len(BODY), took * MOST_S)
        found.append(brief.likely(BODY))
    assert found == [True, True, True, True, True, False, True]


def test_long_ones_between_short_ones_do_not_pass_for_brief() -> None:
    brief = Brief("text", possible=True)
    long = b" " * MOST_BYTES
    for _ in range(3):
        brief.took(len(BODY), MOST_S / 2)
        assert brief.likely(BODY)
        assert not brief.likely(long)
        brief.took(len(long), 10 * MOST_S)


def test_where_it_cannot_be_it_never_is() -> None:
    brief = Brief("image", possible=False)
    brief.took(8, 0.0)
    assert not brief.ever
