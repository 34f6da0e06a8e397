"""What a model card must say against its own figures: what they do not cover, and what the model does badly."""

from __future__ import annotations

import math

from compress.quantize.config import is_integer
from compress.report import facts, provenance, wording
from compress.report.reference import reference
from compress.report.schema import Report, Variant

_FEW_ITEMS = 50  # of a class: below this its recall is known to +-10 points at best


def limitations(report: Report, variant: Variant | None) -> list[str]:
    """A sentence each; of `variant`, the choice, where there is one."""
    n = wording.plural(facts.baseline(report).n, "item")
    machine = provenance.machine(report)
    found = [
        f"All rates were measured on one test split of {n} from {report.data.source}. On other data they will differ.",
        f"The intervals cover the choice of test items, not training again with another seed than {report.run.seed}.",
        f"Latency was measured on one machine{f' ({machine})' if machine else ''}. On another, measure again.",
        "Every input gets one of the labels, also one that belongs to none of them.",
        "The test labels were taken as true, and where the teacher was wrong the student was taught to be wrong.",
    ]
    if not any(one.audit and one.audit.groups for one in report.variants):
        found.append(
            "Whether it serves some groups worse than others was not looked at: the recipe names no column of groups."
        )
    if report.task == "text" and (most := (report.preprocessing or {}).get("max_length")):
        tokens = wording.plural(most, "token")
        found.append(f"It reads {tokens} of a text at most; a longer one is cut, and its prediction says “truncated”.")
    if judged := reference(report).limitation:
        found.append(judged)
    return found if variant is None else [*found, *_own_limitations(variant)]


def _own_limitations(variant: Variant) -> list[str]:
    found = []
    few = sum(score.n < _FEW_ITEMS for score in variant.per_class)
    if few:
        found.append(f"{few} of {len(variant.per_class)} classes have fewer than {_FEW_ITEMS} test items.")
    if is_integer(variant.precision):
        found.append("8-bit arithmetic may give other answers, and be slower, on a processor without VNNI.")
    if not variant.batch_invariant:
        found.append("Its answers depend on what shares the batch, so it is served one item at a time.")
    promise = variant.abstention
    if promise is not None and promise.below and promise.coverage is not None:
        right = wording.percent(promise.test_precision)
        found.append(
            f"A prediction that scores below {wording.fixed(promise.below, 4)} says “abstained”; of the test items "
            f"{wording.percent(promise.coverage)} score more, and {right} of these are right."
        )
    groups = [one for one in variant.audit.groups if one.judged] if variant.audit else []
    if groups and groups[0].drop_points > 0:
        worst = groups[0]
        found.append(
            f"The group that loses most is “{wording.short(worst.group, 40)}”: {wording.points(worst.drop_points)} "
            f"(95 % interval {wording.interval(*worst.drop_points_ci95)}, {wording.plural(worst.n, 'test item')})."
        )
    if math.isfinite(variant.ece):
        found.append(f"Its scores are off by {wording.percent(variant.ece)} on average (calibration error, 15 bins).")
    return found
