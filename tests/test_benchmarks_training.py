from __future__ import annotations

import numpy as np

from benchmarks.training import in_turn


def test_both_ways_go_first_as_often_and_the_first_round_warms_up() -> None:
    called: list[str] = []

    def way(name: str, seconds: float) -> float:
        called.append(name)
        return seconds + len(called) / 100

    found = in_turn([lambda: way("a", 1.0), lambda: way("b", 2.0)], rounds=2)
    assert "".join(called) == "ba" + "ab" + "ba"
    np.testing.assert_allclose(found, [[1.03, 1.06], [2.04, 2.05]])
