"""The answers that flipped, as pictures or texts with what both models said of them."""

from __future__ import annotations

from dataclasses import dataclass

from compress.report import facts, wording
from compress.report.classes import label
from compress.report.schema import Example, Report


@dataclass(frozen=True)
class Shown:
    """One flip on the page. `image` is a data: URI, `text` plain."""

    title: str
    image: str | None
    text: str | None
    alternative: str  # of the picture, for who cannot see it
    label: str
    baseline: str
    choice: str
    is_lost: bool


@dataclass(frozen=True)
class Gallery:
    said: str  # what was picked, of how many
    lost: list[Shown]
    gained: list[Shown]


def gallery(report: Report) -> Gallery | None:
    """The examples of the report; None where it holds none."""
    choice = facts.chosen(report)
    if choice is None or not report.examples:
        return None
    shown = [_shown(example) for example in report.examples]
    lost, gained = [one for one in shown if one.is_lost], [one for one in shown if not one.is_lost]
    said = (
        f"Of {wording.plural(choice.flips.lost, 'answer')} that {choice.id} lost and "
        f"{wording.whole(choice.flips.gained)} that it gained, those of which it is surest: "
        f"{wording.whole(len(lost))} and {wording.whole(len(gained))}. "
        "The recipe’s [report] examples sets how many; 0 keeps the data out of the report."
    )
    return Gallery(said, lost, gained)


def _shown(example: Example) -> Shown:
    named = label(example.label)
    return Shown(
        title=wording.short(example.origin, 40) or f"test item {wording.whole(example.item)}",
        image=example.image,
        text=example.text,
        alternative=f"{named}, test item {example.item}",
        label=named,
        baseline=f"{label(example.baseline)} {wording.percent(example.baseline_score, 0)}",
        choice=f"{label(example.choice)} {wording.percent(example.choice_score, 0)}",
        is_lost=example.kind == "lost",
    )
