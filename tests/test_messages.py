"""What errors and help texts tell a person to type is there: options, commands, fields of a recipe, variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from compress.cli import app
from compress.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("serve", "kernels", "train", "compress", "loadtests", "benchmarks")
# Options of others' programs that a hint names.
OTHERS = {
    "--data-binary",
    "--force-reinstall",
    "--shm-size",
    "--local-dir",
    "--repo-type",
    "--nproc-per-node",
    "--processes",
    "--master",
    "--worker",
}
FIELD = re.compile(rf"(?<![\w./'-])((?:{'|'.join(Recipe.model_fields)})(?:\.[a-z_0-9]+)+)(?![\w/])")
FILES = (".py", ".json", ".html", ".md", ".toml", ".parquet", ".css", ".csv", ".jsonl", ".txt")


@cache
def sentences() -> tuple[tuple[str, str], ...]:
    """(file:line, text) of every text in the source that is more than a word and no docstring."""
    return tuple(
        found for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")) for found in _of(file)
    )


def _of(file: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            docs |= {id(part) for part in node.values}
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            text = node.value
        else:
            continue
        if " " in text.strip():
            yield f"{file.relative_to(ROOT)}:{node.lineno}", text


@cache
def commands() -> dict[str, Any]:
    """Every command of limbeck by its words: "run", "data", "data check"."""
    found: dict[str, Any] = {}
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop()
        found[path] = command
        waiting += [(f"{path} {name}".strip(), inner) for name, inner in getattr(command, "commands", {}).items()]
    return found


@cache
def known_options() -> frozenset[str]:
    """Those of limbeck, and those that a parser of the load tests or benchmarks adds."""
    ours = {option for one in commands().values() for each in one.params for option in each.opts}
    added = re.compile(r'add_argument\(\s*"(--[a-z0-9-]+)"')
    rest = [file for package in ("loadtests", "benchmarks") for file in (ROOT / package).rglob("*.py")]
    return frozenset(ours.union(OTHERS, *(added.findall(file.read_text()) for file in rest)))


def strange_options(text: str) -> list[str]:
    return [option for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text) if option not in known_options()]


def strange_commands(text: str) -> list[str]:
    strange = []
    for one, two in re.findall(r"`limbeck ([a-z0-9-]+)(?: ([a-z]+))?", text):
        group = hasattr(commands().get(one), "commands")
        if one not in commands() or (group and f"{one} {two}" not in commands()):
            strange.append(one)
    return strange


def strange_fields(text: str) -> list[str]:
    return [
        field for field in FIELD.findall(text) if not field.endswith(FILES) and not is_field(field.split("."), Recipe)
    ]


def is_field(path: list[str], model: Any) -> bool:
    """Whether `path` leads through the tables of `model`; what lies in a table of the user's own is theirs."""
    if not path:
        return True
    tables = list(_tables(model))
    if not tables:
        return "dict" in str(model)
    name, *rest = path
    return any(name in table.model_fields and is_field(rest, table.model_fields[name].annotation) for table in tables)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _tables(part)


def strange_variables(text: str) -> list[str]:
    return [name for name in re.findall(r"\bLIMBECK_[A-Z_]+\b", text) if name not in _variables()]


@cache
def _variables() -> frozenset[str]:
    """The variables of the environment that something reads: those that the source holds as a word of their own."""
    return frozenset(name for file in _sources() for name in re.findall(r'"(LIMBECK_[A-Z_]+)"', file.read_text()))


def _sources() -> list[Path]:
    return [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("strange", [strange_options, strange_commands, strange_fields, strange_variables])
def test_a_message_names_only_what_there_is(strange: Any) -> None:
    assert [(place, found) for place, text in sentences() if (found := strange(text))] == []


@pytest.mark.parametrize(
    ("strange", "text"),
    [
        (strange_options, "give it with --variants"),
        (strange_commands, "`limbeck serv` starts one"),
        (strange_commands, "`limbeck data chekc` lists them"),
        (strange_fields, "set data.calibratoin lower"),
        (strange_fields, "set teacher.fit.batchsize lower"),
        (strange_variables, "unset LIMBECK_WORKER first"),
    ],
)
def test_what_is_not_there_is_seen(strange: Any, text: str) -> None:
    assert strange(text)
    assert not strange("set data.calibration or teacher.fit.batch_size, `limbeck data check`, --out, LIMBECK_WORKERS")
