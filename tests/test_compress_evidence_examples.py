from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from compress.evidence.examples import MOST_PIXELS, MOST_TEXT, examples, thumbnail
from compress.report.schema import Example
from train.data import Data, DataConfig, load_data


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(DataConfig(source="digits"), 0, "image")


def answers(data: Data, wrong: dict[int, float]) -> np.ndarray:
    """Scores on the test split that are right with 0.6 but for the rows `wrong`, whose next class has that score."""
    labels = data.splits["test"].labels
    scores = np.full((len(labels), 10), 0.01, dtype=np.float32)
    scores[np.arange(len(labels)), labels] = 0.6
    for row, score in wrong.items():
        scores[row, labels[row]], scores[row, (labels[row] + 1) % 10] = 0.1, score
    return scores


def test_the_surest_of_what_was_lost_come_first_and_then_what_was_gained(data: Data) -> None:
    base = answers(data, {3: 0.7, 4: 0.7})
    found = examples(data, base, answers(data, {4: 0.8, 10: 0.65, 11: 0.95, 12: 0.9}), 3)
    assert [(one.kind, one.item) for one in found] == [("lost", 11), ("lost", 12), ("gained", 3)]
    first = found[0]
    assert first.baseline == first.label != first.choice
    assert first.choice_score == pytest.approx(0.95)
    assert first.baseline_score == pytest.approx(0.6)


def test_what_is_not_there_leaves_its_room_to_the_other_kind(data: Data) -> None:
    lost = examples(data, answers(data, {}), answers(data, dict.fromkeys(range(9), 0.7)), 6)
    assert [one.kind for one in lost] == ["lost"] * 6
    gained = examples(data, answers(data, dict.fromkeys(range(9), 0.7)), answers(data, {}), 6)
    assert [one.kind for one in gained] == ["gained"] * 6


def test_none_is_shown_where_none_is_asked_for_or_nothing_flipped(data: Data) -> None:
    assert examples(data, answers(data, {}), answers(data, {1: 0.9}), 0) == []
    assert examples(data, answers(data, {1: 0.9}), answers(data, {1: 0.9}), 12) == []


def test_a_picture_is_small_upright_and_without_metadata(data: Data) -> None:
    large = Image.new("RGB", (400, 200), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "a secret place"
    written = io.BytesIO()
    large.save(written, "JPEG", exif=exif)
    uri = thumbnail(written.getvalue())
    content = base64.b64decode(uri.partition(",")[2])
    small = Image.open(io.BytesIO(content))
    assert small.size == (MOST_PIXELS // 2, MOST_PIXELS)
    assert b"secret" not in content
    [shown] = examples(data, answers(data, {}), answers(data, {1: 0.9}), 1)
    assert shown.image is not None
    assert shown.image.startswith("data:image/png;base64,")


def test_nothing_but_a_small_picture_may_stand_where_the_page_would_fetch_it(data: Data) -> None:
    good = examples(data, answers(data, {}), answers(data, {1: 0.9}), 1)
    content = good[0].model_dump() | {"image": "https://example.org/pixel.png"}
    with pytest.raises(ValueError, match="image"):
        Example.model_validate(content)


def test_a_long_text_is_cut() -> None:
    from compress.evidence.examples import _text

    assert _text(b"short") == "short"
    assert len(_text(b"x" * 4000)) == MOST_TEXT
