from __future__ import annotations

import numpy as np

from compress.report.cards import expected_answers


def test_the_shares_of_labels_and_of_confidences() -> None:
    scores = np.array([[0.92, 0.08], [0.6, 0.4], [0.3, 0.7], [0.501, 0.499]], np.float32)
    expected = expected_answers(scores, ["a", "b"])
    assert expected["labels"] == {"a": 0.75, "b": 0.25}
    assert expected["confidence"]["0.5"] == 0
    assert expected["confidence"]["0.55"] == 0.25
    assert expected["confidence"]["0.95"] == expected["confidence"]["1"] == 1
