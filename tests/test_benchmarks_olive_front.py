from __future__ import annotations

from benchmarks.olive_front import Point, verdict


def _point(name: str, accuracy: float, size_mb: float, ms: float) -> Point:
    return Point(name, name.split(":")[0], accuracy, size_mb, ms)


def test_a_point_dominates_what_is_no_better_in_anything_and_worse_in_something() -> None:
    point = _point("ours: a", 0.9, 10, 2)
    assert point.dominates(_point("olive: b", 0.9, 10, 3))
    assert not point.dominates(_point("olive: b", 0.9, 10, 2))  # equal
    assert not point.dominates(_point("olive: b", 0.91, 20, 3))


def test_the_verdict_names_who_dominates_whom_in_both_directions() -> None:
    told = verdict(
        [
            _point("ours: small", 0.85, 10, 1),
            _point("ours: large", 0.90, 40, 4),
            _point("ours: worse", 0.84, 12, 2),
            _point("olive: slower", 0.85, 10, 5),
            _point("olive: better", 0.92, 40, 3),
        ]
    )
    assert told["front"] == ["ours: small", "ours: large"]
    assert told["dominated_by_olive"] == {"ours: large": ["olive: better"]}
    assert told["olive_dominated_by_us"] == {"olive: slower": ["ours: small", "ours: large"][:1]}
