"""What the judged drop is a drop from, in words: the baseline item by item, or a target that the recipe states."""

from __future__ import annotations

from dataclasses import dataclass

from compress.report import facts, wording
from compress.report.schema import Report, Variant

# Of every variant against the baseline, whatever is judged.
_PAIRED = (
    "The drop, the flips and the agreement compare each variant with the baseline, {baseline}, item by item. Flips: "
    "items that the baseline had right and the variant lost (−), and the other way round (+)."
)


@dataclass(frozen=True)
class Reference:
    """`what` and `brief` name the judged drop in charts, `drops_title` is a heading, the others a paragraph each."""

    what: str
    brief: str
    rule: str
    paired: str
    drops_title: str
    drops_note: str
    drops_empty: str
    method: str
    limitation: str  # of the choice, for the model card; empty where there is nothing to say


def reference(report: Report) -> Reference:
    """The words that fit what this report's verdicts rest on."""
    return _teacher(report) if report.constraints.target_percent is None else _target(report)


def _teacher(report: Report) -> Reference:
    metric, margin = facts.metric_name(report.constraints.metric), wording.points(report.constraints.max_drop_points)
    return Reference(
        what=f"Drop in {metric}",
        brief="Drop",
        rule="A variant is accepted when it meets all of them on the test split. It holds the margin only if the whole "
        "95 % interval of its drop ends within it: non-inferiority at one-sided 97.5 %"
        f"{_method(report)}. A drop that merely measures small is not enough.",
        paired=_PAIRED.format(baseline=report.baseline),
        drops_title="What was lost, and how surely",
        drops_note="Each bar is the 95 % interval of a drop, from the items on which the variant and the baseline "
        f"disagree. A bar that reaches past the margin of {margin} has not been shown to be good enough, whatever its "
        "middle says.",
        drops_empty="There is nothing to compare with the baseline.",
        method=f"Drop and flips compare each variant with {report.baseline}, item by item; a variant holds the margin "
        f"of {margin} only if its whole 95 % interval does.",
        limitation="",
    )


def _method(report: Report) -> str:
    """By what the margin is judged."""
    if report.constraints.metric == "macro_f1":
        return ", by the bootstrap"
    return ", by the paired score interval (Tango 1998) and an exact test of the same outcomes (Chan 1998)"


def _target(report: Report) -> Reference:
    metric, limits = facts.metric_name(report.constraints.metric), report.constraints
    assert limits.target_percent is not None
    margin, target = wording.points(limits.max_drop_points), wording.percentage(limits.target_percent)
    least = wording.percentage(limits.target_percent - limits.max_drop_points)
    return Reference(
        what=f"{wording.capital(metric)} below the target of {target}",
        brief="Below the target",
        rule=f"A variant is accepted when it meets all of them on the test split. Its {metric} is judged against the "
        f"recipe’s own target of {target}, not against the teacher. It holds the margin only if the whole 95 % "
        f"interval of its {metric} is at least {least}, which is one-sided 97.5 % confidence. A rate that merely "
        "measures high is not enough.",
        paired=f"{_PAIRED.format(baseline=report.baseline)} The verdicts do not rest on these, but on the target of "
        f"{target}.",
        drops_title="How far from the target, and how surely",
        drops_note=f"Each bar is the 95 % interval of how far a variant’s {metric} is below the target of {target}; "
        f"left of zero it is above. A bar that reaches past the margin of {margin} has not been shown to be good "
        "enough, whatever its middle says.",
        drops_empty="There is nothing to hold against the target.",
        method=f"A variant holds the margin of {margin} below the target of {target} {metric} only if the whole 95 % "
        f"interval of its {metric} is at least {least}. Drop and flips compare each variant with {report.baseline}, "
        "item by item, and are not what is judged.",
        limitation=_limitation(facts.chosen(report), f"{target} {metric}"),
    )


def _limitation(variant: Variant | None, target: str) -> str:
    """How the choice stands to its teacher, which the verdict does not say."""
    if variant is None:
        return ""
    low, high = variant.accuracy_drop_points_ci95
    return (
        f"It was judged against a target of {target}, not against its teacher. Its drop in accuracy from the teacher "
        f"is {wording.points(variant.accuracy_drop_points)} (95 % interval {wording.interval(low, high)})."
    )
