"""A report as a page, as Markdown for a pull request, as a model card. Every name in it is hostile until escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compress.report.card import card
from compress.report.loads import Load
from compress.report.schema import Report
from compress.report.view import view
from compress.report.wording import clean

_HERE = Path(__file__).parent
# What would start a tag, an entity, an emphasis, a link, a code span, a table cell, a formula or a mention on GitHub.
_INLINE = re.compile(r"([\\`*_\[\]~|$])")
# What would start a heading, a list, a quotation or an underline at the beginning of a line.
_LINE_START = re.compile(r"^([#+\-=]|\d+[.)](?=\s|$))")


def render_html(report: Report, loads: Sequence[Load] = ()) -> str:
    """The whole page with what was found under load, in one file that asks for nothing from the network."""
    return _html().get_template("report.html.j2").render(view=view(report, loads), stylesheet=_stylesheet())


def render_preview(page: Any) -> str:
    """`compress.data.preview.Page` as a page like that."""
    return _html().get_template("preview.html.j2").render(page=page, stylesheet=_stylesheet())


def render_tuning(page: Any) -> str:
    """`compress.report.tuning.Page` as a page like that."""
    return _html().get_template("tune.html.j2").render(page=page, stylesheet=_stylesheet())


def render_comparison(page: Any) -> str:
    """`compress.report.comparing.Page` as a page like that."""
    return _html().get_template("compare.html.j2").render(page=page, stylesheet=_stylesheet())


def render_optimizing(page: Any) -> str:
    """`compress.report.optimizing.Page` as a page like that."""
    return _html().get_template("optimize.html.j2").render(page=page, stylesheet=_stylesheet())


def render_markdown(report: Report) -> str:
    """The verdict and the key tables, to be pasted into a pull request."""
    return _markdown().get_template("report.md.j2").render(view=view(report))


def render_model_card(report: Report) -> str:
    """The model card of the selected variant, with Hugging Face's front matter."""
    return _markdown().get_template("model_card.md.j2").render(view=view(report), card=card(report))


def _stylesheet() -> Markup:
    return Markup((_HERE / "report.css").read_text(encoding="utf-8"))


@cache
def _html() -> Environment:
    return _environment(lambda value: clean(value) if _is_plain(value) else value)


@cache
def _markdown() -> Environment:
    environment = _environment(lambda value: markdown(value) if _is_plain(value) else value)
    environment.filters["code"] = code
    environment.filters["yaml"] = yaml
    environment.filters["line"] = line
    return environment


def _environment(finalize: Any) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Markup)


def markdown(value: str) -> Markup:
    """`value` as literal text of one line, in a paragraph, a list or a table."""
    text = " ".join(clean(value).split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "&#64;")):
        text = text.replace(sign, entity)
    text = _INLINE.sub(r"\\\1", text)
    start = _LINE_START.match(text)
    if start:
        text = f"{start[0][:-1]}\\{text[start.end() - 1 :]}"
    return Markup(text)


def code(value: str) -> Markup:
    """`value` as a code span, fenced so that its own backticks do not end it."""
    text = " ".join(clean(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{fence}{pad}{text}{pad}{fence}")


def line(value: str) -> Markup:
    """`value` as one line of a fenced block: nothing in it can end the block."""
    return Markup(" ".join(clean(value).split()).replace("```", "` ` `"))


def yaml(value: str | float) -> Markup:
    """`value` as a YAML scalar; JSON's strings and numbers are YAML too."""
    return Markup(json.dumps(clean(value) if isinstance(value, str) else value, ensure_ascii=False))
