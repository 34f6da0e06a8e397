"""The verdict of a run in one sentence, which carries its own interval, and what it cannot see."""

from __future__ import annotations

from compress.evidence.drops import spoken
from compress.recipe import Accept
from compress.report import facts
from compress.report.schema import Variant


def verdict_sentence(chosen: Variant, base: Variant, accept: Accept) -> str:
    """What the choice is worth: its gains on the baseline, its drop with the 95 % interval, and whether that holds."""
    worth = _change(chosen, accept) if accept.target_percent is None else _standing(chosen, accept)
    size = _times(base.size_bytes / chosen.size_bytes, "smaller", "larger")
    speed = _times(chosen.speedup, "faster", "slower")
    gains = f"{chosen.id} is {size} and {speed} than the teacher and {worth}"
    warning = _busy(chosen, base) + _warning(base) + _vacuous(base, accept)
    if chosen.verdict == "accepted":
        return f"Accepted: {gains}, within the margin of {accept.max_drop_points:g}.{warning}"
    return f"Not accepted: {gains}, but {'; '.join(chosen.reasons)}.{warning}"


def _change(chosen: Variant, accept: Accept) -> str:
    """What was lost or gained against the teacher."""
    low, high = chosen.metric_drop_points_ci95
    points, metric = chosen.metric_drop_points, spoken(accept.metric)
    change = f"loses {points:.2f} points of {metric}" if points >= 0 else f"gains {-points:.2f} points of {metric}"
    return f"{change} (95 % interval of the drop {low:+.2f} to {high:+.2f}, {_items(chosen, accept)})"


def _standing(chosen: Variant, accept: Accept) -> str:
    """Where it stands against the recipe's target."""
    assert accept.target_percent is not None
    points, target = chosen.metric_drop_points, accept.target_percent
    low, high = (target - limit for limit in reversed(chosen.metric_drop_points_ci95))
    side = f"{points:.2f} points below" if round(points, 2) > 0 else f"{abs(points):.2f} points above"
    metric = spoken(accept.metric)
    return (
        f"has {target - points:.2f} % {metric}, {side} the target of {target:g} % "
        f"(95 % interval of the {metric} {low:.2f} to {high:.2f} %, {_items(chosen, accept)})"
    )


def _items(chosen: Variant, accept: Accept) -> str:
    """How many test items the metric rests on."""
    if not accept.metric.startswith("recall:"):
        return f"{chosen.n:,} test items"
    label = accept.metric.partition(":")[2]
    return f"{next(score.n for score in chosen.per_class if score.label == label):,} test items of this label"


def _times(ratio: float, above: str, below: str) -> str:
    """A ratio as a reader says it, "4.0x smaller": never "1.0x smaller" or "0.5x faster"."""
    if 0.95 <= ratio < 1.05:
        return f"no {above}"
    return f"{ratio:.1f}x {above}" if ratio > 1 else f"{1 / ratio:.1f}x {below}"


def _busy(chosen: Variant, base: Variant) -> str:
    """What the clock would have claimed, where other programs ran beside."""
    ratio = facts.by_the_clock(base, chosen)
    if ratio is None:
        return ""
    return (
        f" By the clock it was {_times(ratio, 'faster', 'slower')}: the machine was busy with other work, which "
        "interrupts long calls more than short ones; what counts is the processor's time."
    )


def _vacuous(base: Variant, accept: Accept) -> str:
    """What a target cannot see: where one class is most of the items, naming it always may be enough."""
    commonest = max(base.per_class, key=lambda score: score.n)
    share = 100 * commonest.n / base.n
    if accept.target_percent is None or accept.metric != "accuracy":
        return ""
    if share < accept.target_percent - accept.max_drop_points:
        return ""
    return f" Beware: always answering '{commonest.label}' has {share:.2f} % accuracy, so this target asks for nothing."


def _warning(base: Variant) -> str:
    """What a margin cannot see: a teacher that has learned nothing is easily equalled."""
    commonest = max(base.per_class, key=lambda score: score.n)
    if base.n - base.errors > commonest.n:
        return ""
    return (
        f" Beware: the teacher itself has {base.errors:,} of {base.n:,} wrong, no better than always answering "
        f"'{commonest.label}' ({base.n - commonest.n:,} wrong): it has learned too little to teach anything."
    )
