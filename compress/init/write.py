"""Write the planned recipe, and say what was found and chosen."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import jinja2
import tomli_w

from compress.init.look import Findings, look
from compress.init.plan import Plan, plan
from compress.recipe_file import load_recipe
from serve.errors import UserError

_LONG = 3600.0  # seconds: whoever only wants to see what comes out would rather wait less


def init(path: Path, out: Path, name: str | None, teacher: str | None, force: bool) -> Plan:
    """Look at `path` and write the recipe `out`. Raises UserError for data that no recipe could use."""
    if out.exists() and not force:
        raise UserError(f"{out} is there already", "give another file with --out, or overwrite it with --force")
    made = plan(look(path), name or _name(path), teacher)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(made, path, out), encoding="utf-8")
    load_recipe(out)  # what init writes, run accepts
    return made


def how_long(out: Path) -> str:
    """How long a run of the recipe takes on this machine, by a few batches of its models, timed now."""
    from compress.init import estimate  # heavy: it trains a little

    try:
        found = estimate.estimate(load_recipe(out))
    except UserError as error:  # of a model that is not there, say: `limbeck run` would refuse it too
        return f"  how long that takes is not known: {error}"
    told = f"  {found.told()}"
    if found.seconds < _LONG:
        return told
    sooner = "--set teacher.fit.epochs=1 --set 'students.*.fit.epochs=1' --out runs/first"
    return f"{told}\n  for a first look in less: limbeck run {out} {sooner}"


def render(plan: Plan, path: Path, out: Path) -> str:
    """The recipe as commented TOML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compress.init", "."), keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"toml": _toml, "comment": _comment}
    template = environment.get_template("recipe.toml.j2")
    return template.render(plan=plan, path=path, out=out, summary=summary(plan.findings))


def summary(findings: Findings) -> str:
    """What was found, in one line."""
    what = "texts" if findings.task == "text" else "images"
    own = ", ".join(f"{size:,} for {split}" for split, size in findings.own.items())
    rarest = min(findings.classes, key=lambda label: findings.classes[label])
    parts = [
        f"{findings.total:,} {what}" + (f" to train on, {own}" if own else ", to be split"),
        f"{len(findings.classes)} classes, the rarest '{rarest}' with {findings.classes[rarest]:,}",
    ]
    if findings.text is not None:
        text = findings.text
        unit = "characters" if text.mostly == "CJK" else "words"
        parts.append(f"{text.words:.0f} {unit} (median), {text.longest} at most, mostly {text.script_name} letters")
    if findings.image is not None:
        height, width = findings.image.size
        alike = "all" if findings.image.alike else "around"
        parts.append(f"{alike} {width}x{height} pixels{', gray' if findings.image.gray else ''}")
    return "; ".join(parts)


def say(plan: Plan, out: Path) -> str:
    """What a person reads after `limbeck init`."""
    lines = [f"found: {summary(plan.findings)}"]
    lines += [f"  {key} = {_toml(reason.value)}: {reason.why}" for key, reason in plan.keys.items()]
    lines += [f"  repair {key}: {found}" for key, found in plan.repairs.items()]
    lines.append(f"teacher: {plan.teacher.model}: {plan.teacher.why}")
    lines += [f"student: {student.model}: {student.why}" for student in plan.students]
    lines.append(f"may lose: {plan.margin.value:g} {plan.margin.why}")
    lines += [f"wrote {out}; next:", f"  limbeck data check {out}", f"  limbeck run {out}"]
    return "\n".join(lines)


def _comment(text: str) -> str:
    """A sentence as the lines of a comment; the first mark stands in the template."""
    return "\n# ".join(textwrap.wrap(text[:1].upper() + text[1:], 116))


def _name(path: Path) -> str:
    stem = path.stem if path.is_file() else path.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "data"


def _toml(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").strip()
