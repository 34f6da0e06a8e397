"""What the documentation shows is there: its commands are taken, its tables are read, its Python runs."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import take, words_of
from pydantic import BaseModel
from tiny_run import content, made_up_memory
from typer.exceptions import TyperException

import compress.api
from compress.onnx_model.description import OnnxDescription
from compress.recipe import Accept, Evaluate, NamedTeacher, Recipe, Student
from compress.stages import measuring
from serve.manifest import ServingConfig
from train.augment import AugmentConfig
from train.data import DataConfig, Repair
from train.distill.config import DistillConfig, FeatureConfig
from train.fit_config import FitConfig, StackConfig
from train.prune import PruneConfig
from train.tuning import TuneConfig
from train.unlabelled import UnlabelledConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTERS = ("torchrun", "accelerate", "python", "python3")  # of `-m compress ...` or `-m benchmarks.x ...`


def blocks(language: str) -> Iterator[Any]:
    """The fenced blocks in a language, each as a test's parameter."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 2
            yield pytest.param(found[1], id=f"{page.name}:{line}")


def commands() -> Iterator[Any]:
    for block in blocks("bash"):
        lines = re.sub(r"\\\n\s*", "", block.values[0]).splitlines()
        for line in filter(None, map(str.strip, lines)):
            yield pytest.param(line, id=f"{block.id} {line[:40]}")


@pytest.mark.parametrize("line", commands())
def test_a_command_is_one_that_there_is(line: str) -> None:
    words = words_of(line)
    if words[0] == "limbeck" and words[1] != "--install-completion":
        take(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[0] in STARTERS and "-m" in words:
        module, *rest = words[words.index("-m") + 1 :]
        if module == "compress":
            take(rest)
        else:
            assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
    for path in (word for word in words if word.startswith(("compress/", "loadtests/", "benchmarks/", "tests/"))):
        assert (ROOT / path).exists(), f"{path} is not there"


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_table_has_no_field_that_nothing_reads(block: str) -> None:
    found = tomllib.loads(block)
    models: tuple[type[BaseModel], ...] = (Recipe, OnnxDescription, ServingConfig)
    unknown = [sorted(unread(found, model)) for model in models]
    assert [] in unknown, f"not a part of a recipe: {unknown[0]}"


def unread(content: Mapping[str, Any], model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Fields that `model` does not have, the tables within looked into."""
    for key, value in content.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{path}{key}"
            continue
        inner = list(_models_in(field.annotation))
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            if inner and isinstance(table, dict):
                yield from min((list(unread(table, kind, f"{path}{key}.")) for kind in inner), key=len)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


SETTINGS = (FitConfig, StackConfig, DistillConfig, FeatureConfig, AugmentConfig, DataConfig, Repair, UnlabelledConfig)


@pytest.mark.parametrize("table", [*SETTINGS, PruneConfig, TuneConfig, Evaluate, Accept, Student, NamedTeacher])
def test_every_field_of_a_table_is_named_where_recipes_are_described(table: type[BaseModel]) -> None:
    described = "".join((ROOT / "docs" / name).read_text() for name in ("recipes.md", "evidence.md"))
    assert [name for name in table.model_fields if not re.search(rf"\b{name}\b", described)] == []


@pytest.mark.parametrize("block", blocks("python"))
def test_python_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with a tiny teacher alone in the stead of `digits` and one of its items as a picture."""
    from train.data import load_data

    items = load_data(DataConfig(source="digits"), 0, "image").splits["test"]
    row = [str(label) for label in items.labels].index("7")
    (tmp_path / "digit.png").write_bytes(items.content[row])
    tiny = {**content(), "name": "digits", "students": [], "quantize": {"precisions": ["fp32"]}}
    monkeypatch.chdir(tmp_path)
    original = compress.api.run
    monkeypatch.setattr(compress.api, "run", lambda recipe, **rest: original(tiny, quiet=True, **rest))
    monkeypatch.setattr("compress.run", compress.api.run, raising=False)
    monkeypatch.setattr(measuring, "measure_memory", made_up_memory)  # else a process for each variant
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "runs/digits/report.html").is_file()


@pytest.mark.parametrize("wrong", ["report --nonsense", "data chekc recipe.toml", "loadtest", "init a b c"])
def test_what_the_command_line_would_refuse_is_seen(wrong: str) -> None:
    with pytest.raises(TyperException):
        take(wrong.split())


def test_a_field_that_nothing_reads_is_seen() -> None:
    found = {"teacher": {"fit": {"epoks": 3}}, "students": [{"name": "small", "distill": {"alpha": 0.5, "heat": 2}}]}
    assert sorted(unread(found, Recipe)) == ["students.distill.heat", "teacher.fit.epoks"]
