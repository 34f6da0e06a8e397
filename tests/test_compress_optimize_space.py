"""[optimize]: what it may say, which designs there are, and which is tried next."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from compress.evidence.drops import Drop, share_drop
from compress.evidence.statistics import drop_interval
from compress.optimize.assurance import assurance_problems, chance_to_hold
from compress.optimize.config import OptimizeConfig, StudentSpace, seconds_of
from compress.optimize.halving import Standing, promoted, ranked, rungs
from compress.optimize.space import Proposals, check_space, design, designs_of
from compress.recipe import Accept, Student
from serve.errors import UserError

LAYERS = StudentSpace(
    name="layers",
    model=("teacher-layers:2", "teacher-layers:3"),
    options={"ffn_width": [768, 384], "heads": 6, "take": [["first"], ["last"]]},
)
CNN = StudentSpace(name="cnn", model=("builtin:cnn-8x16", "builtin:cnn-4x8"), options={"hidden": [16, 8]})


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400)])
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "soon", "30 minutes", "0s", "-5m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is no budget|leaves no time"):
        OptimizeConfig(budget=text)


def test_a_list_is_a_choice_and_a_list_of_lists_is_one_of_lists() -> None:
    assert {name: len(values) for name, values in LAYERS.choices.items()} == {"model": 2, "ffn_width": 2, "take": 2}
    names = [one.name for one in designs_of(LAYERS)]
    assert len(set(names)) == 8
    assert names[0] == "layers-2-fw768-tfirst"
    last = design(LAYERS, {"model": 1, "ffn_width": 1, "take": 1}).student
    assert (last.model, last.options) == ("teacher-layers:3", {"ffn_width": 384, "heads": 6, "take": ["last"]})
    assert not last.control


def test_a_design_that_cannot_be_is_refused_before_anything_is_trained() -> None:
    wrong = CNN.model_copy(update={"options": {"hidden": [16, -1]}})
    with pytest.raises(UserError, match="hidden"):
        check_space([wrong], "image")
    check_space([CNN], "image")


def test_every_design_is_proposed_once_and_the_recipes_own_come_first() -> None:
    own = Student(name="mine", model="builtin:cnn-2")
    same = design(CNN, {"model": 0, "hidden": 0}).student.model_copy(update={"name": "as-in-the-space"})
    proposals = Proposals([CNN, LAYERS], [own, same], seed=0, startup=2)
    assert proposals.total() == 2 + 4 + 8
    seen: list[str] = []
    while wave := proposals.next(3):
        seen += [one.name for one in wave]
        for one in wave:
            proposals.tell(one, aim=1.0, constraints={"drop": 0.5, "p95": -0.1, "size": 0.0})
    assert seen[:2] == ["mine", "as-in-the-space"]
    assert len(seen) == len(set(seen)) == 13  # one of the space is the recipe's own under another name


def test_the_same_search_proposes_the_same_again() -> None:
    def drawn(seed: int) -> list[str]:
        proposals = Proposals([LAYERS, CNN], [], seed, startup=3)
        found = []
        for number in range(6):
            (one,) = proposals.next(1)
            found.append(one.name)
            proposals.tell(one, aim=number, constraints={"drop": -1.0, "p95": 0.0, "size": 0.0})
        return found

    assert drawn(1) == drawn(1)


def test_what_breaks_a_limit_is_proposed_less() -> None:
    wide = StudentSpace(name="cnn", model="builtin:cnn-8", options={"hidden": list(range(8, 8 * 41, 8))})
    proposals = Proposals([wide], [], seed=0, startup=8)
    tried = []
    for _ in range(24):
        (one,) = proposals.next(1)
        hidden = one.student.options["hidden"]
        tried.append(hidden)
        proposals.tell(one, aim=-hidden, constraints={"drop": 0.0, "p95": 0.0, "size": (hidden - 100) / 100})
    below = [sum(hidden <= 100 for hidden in part) for part in (tried[:8], tried[8:])]
    assert below[1] > 2 * below[0]  # though what is larger would be better, were it not for the limit


@pytest.mark.parametrize(
    ("epochs", "contenders", "marks"),
    [(9, 9, [1, 3, 9]), (9, 3, [3, 9]), (9, 1, [9]), (30, 6, [3, 10, 30]), (2, 6, [1, 2]), (1, 6, [1])],
)
def test_steps_are_earlier_the_more_compete(epochs: int, contenders: int, marks: list[int]) -> None:
    assert rungs(epochs, contenders, 3) == marks


def test_the_better_go_on_and_of_equals_the_faster() -> None:
    standings = [
        Standing("slow", 0.90, aim=3.0),
        Standing("fast", 0.89, aim=1.0),  # within a standard error of 400 items
        Standing("worse", 0.80, aim=0.5),
        Standing("worst", 0.40, aim=0.1),
    ]
    assert [one.name for one in ranked(standings, 400)] == ["fast", "slow", "worse", "worst"]
    assert promoted(standings, 400, 3) == ["fast", "slow"]
    begun = Standing("pruned", 0.94, aim=2.0, group="the teacher's weights")
    assert promoted([begun, *standings], 400, 4) == ["pruned", "fast"]  # it is ahead, but not of its like
    assert next(one.name for one in ranked(standings, 40_000)) == "slow"


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 2), (8, 1)])
def test_the_chance_to_hold_on_test_is_that_of_test_splits_drawn_anew(lost: int, gained: int) -> None:
    """Against a simulation of its own: true rates from the prior, kept where they give these counts on validation."""
    generator, n, test, margin = np.random.default_rng(7), 200, 400, 2.0
    held = []
    while len(held) < 150:
        rates = generator.dirichlet([0.5, 0.5, 0.5], 200_000)
        rates = rates[(rates[:, 0] < 0.15) & (rates[:, 1] < 0.15)]
        seen = np.array([generator.multinomial(n, rate) for rate in rates])
        for rate in rates[(seen[:, 0] == lost) & (seen[:, 1] == gained)]:
            drawn = generator.multinomial(test, rate)
            held.append(100 * drop_interval(drawn[0], drawn[1], test)[1] <= margin)
    right, wrong = np.zeros(n, bool), np.zeros(n, bool)
    right[: n - lost] = True
    wrong[gained:] = True
    chance = chance_to_hold(Accept(max_drop_points=margin), share_drop(right, wrong), test)
    assert chance == pytest.approx(np.mean(held), abs=0.12)


def test_of_a_target_too_and_what_cannot_be_counted_has_no_chance() -> None:
    accept = Accept(max_drop_points=2.0, target_percent=90.0)
    sure, unsure = (Drop(0, 0, 0, n=500, right=right, target=90.0) for right in (490, 452))
    assert chance_to_hold(accept, sure, 1000) == 1.0
    assert 0.05 < (chance_to_hold(accept, unsure, 1000) or 0) < 0.9
    assert chance_to_hold(accept, Drop(1.0, 0.0, 2.0, n=500), 1000) is None
    assert assurance_problems(None, 0.9, 500) == assurance_problems(0.95, 0.9, 500) == []
    assert "with a chance of 50%, under 90%" in assurance_problems(0.5, 0.9, 500)[0]
