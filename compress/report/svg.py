"""The few pieces that the charts are drawn with: elements, scales, ticks. All text is escaped here, once.

Lengths are CSS pixels of the drawing. Colours and type live in report.css, so that a chart follows the page's theme.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from compress.report.wording import clean

TEXT = 12.0  # font size of everything in a chart
WIDE, NARROW = 860.0, 340.0  # the two widths that charts are drawn for: desks and paper, telephones


@dataclass(frozen=True)
class Scale:
    """Maps `low..high` of the data onto `start..end` pixels; what lies outside lands on the nearer edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(max(x, 1e-12)) if self.log else x for x in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


@dataclass(frozen=True)
class Entry:
    """One sign of a legend and what it stands for; a sign that is not drawn is written, such as a number."""

    sign: str
    words: str


def tag(element: str, *children: str, **attributes: str | float) -> Markup:
    """`<element attributes>children</element>`; plain children are escaped, an attribute's `_` becomes `-`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"' for name, value in attributes.items()
    )
    return Markup(f"<{element}{written}>{''.join(escape(child) for child in children)}</{element}>")


def _attribute(value: str | float) -> str:
    return clean(value) if isinstance(value, str) else f"{round(value, 1) + 0.0:g}"


def text(x: float, y: float, words: str, anchor: str = "start", class_: str = "") -> Markup:
    styled: dict[str, str] = {"class_": class_} if class_ else {}
    return tag("text", clean(words), x=x, y=y, text_anchor=anchor, **styled)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def group(children: Iterable[str], class_: str) -> Markup:
    return tag("g", *children, class_=class_)


def tip(x: float, y: float, lines: Sequence[str], width: float) -> Markup:
    """What is to know of the point at x, y, shown while it is hovered over or has the focus: no script is needed.

    The stylesheet hides and shows it. Draw the tips last: what comes later lies on top.
    """
    across = max(text_width(line) for line in lines) + 20
    down = 17 * len(lines) + 10
    left = x + 14 if x + 14 + across <= width else max(x - 14 - across, 2.0)
    top = max(y - down / 2, 2.0)
    words = [text(left + 10, top + 18 + 17 * at, line, class_="" if at else "head") for at, line in enumerate(lines)]
    box = tag("rect", x=left, y=top, width=across, height=down, rx=3.0, class_="ground")
    seen = tag("circle", cx=x, cy=y, r=12.0, class_="target")
    label = "; ".join(clean(line) for line in lines)
    return tag("g", seen, group([box, *words], "told"), class_="tip", tabindex="0", role="img", aria_label=label)


def drawing(
    name: str, title: str, description: str, size: tuple[float, float], parts: Iterable[str], told: bool = False
) -> Markup:
    """A whole chart. `name` is unique on the page: it ties title and description to the drawing for screen readers.

    One with tips (`told`) is a group of parts for them, any other a single image.
    """
    width, height = size
    return tag(
        "svg",
        tag("title", clean(title), id=f"{name}-title"),
        tag("desc", clean(description), id=f"{name}-desc"),
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="group" if told else "img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def marker(role: str, x: float, y: float, class_: str = "") -> Markup:
    """The sign of a role: a square for the teacher, a disc for a student, a triangle for a control."""
    classes = f"mark {role} {class_}".strip()
    if role == "teacher":
        return tag("rect", x=x - 4.5, y=y - 4.5, width=9.0, height=9.0, class_=classes)
    if role == "control":
        corners = f"{x:.1f},{y - 6:.1f} {x + 5.6:.1f},{y + 4.4:.1f} {x - 5.6:.1f},{y + 4.4:.1f}"
        return tag("polygon", points=corners, class_=classes)
    return tag("circle", cx=x, cy=y, r=5.0, class_=classes)


def ring(x: float, y: float) -> Markup:
    """The sign of the selected variant, about its marker."""
    return tag("circle", cx=x, cy=y, r=9.5, class_="ring")


def legend(
    entries: Sequence[Entry], left: float, top: float, right: float, aligned: bool = False
) -> tuple[list[Markup], float]:
    """The entries in lines between `left` and `right` (in columns if `aligned`), and the height where they end."""
    if not entries:
        return [], top
    parts, x, y = [], left, top + TEXT
    widest = max(text_width(entry.words) for entry in entries)
    for entry in entries:
        wanted = 22 + (widest if aligned else text_width(entry.words))
        if x > left and x + wanted > right:
            x, y = left, y + 20
        parts += [_sign(entry.sign, x + 6, y - 4), text(x + 18, y, entry.words)]
        x += wanted + 14
    return parts, y + 10


def _sign(sign: str, x: float, y: float) -> Markup:
    if sign in ("teacher", "student", "control"):
        return marker(sign, x, y, "plain")
    if sign in ("holds", "open"):
        return marker("student", x, y, sign)
    if sign == "ring":
        return tag("circle", cx=x, cy=y, r=7.0, class_="ring")
    if sign in ("better", "worse"):
        return tag("rect", x=x - 7, y=y - 4, width=14.0, height=8.0, class_=f"bar {sign}")
    if sign in ("ideal", "margin"):
        return line(x - 7, y, x + 7, y, sign)
    if sign == "bin":
        return tag("circle", cx=x, cy=y, r=3.5, class_="bin")
    if sign == "box":
        return group(
            [tag("rect", x=x - 6, y=y - 5, width=12.0, height=10.0, class_="box"), line(x, y - 5, x, y + 5, "median")],
            "sign",
        )
    if sign == "front":
        return line(x - 7, y, x + 7, y, "front")
    if sign == "whisker":
        return line(x, y - 7, x, y + 7, "stem")
    return text(x, y + 4, sign, "middle", "name")


def text_width(words: str) -> float:
    """Pixels that `words` take at most in the page's sans-serif faces; wide East Asian letters count double."""
    return sum(TEXT if unicodedata.east_asian_width(letter) in "WF" else 0.57 * TEXT for letter in words)


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Round values in `low..high`, about `about` of them, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) + 0.0 for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose `low..high`; both positive."""
    series = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    first = max(at for at, value in enumerate(series) if value <= low * (1 + 1e-9))
    last = min(at for at, value in enumerate(series) if value >= high * (1 - 1e-9))
    return series[first : max(last, first + 1) + 1]
