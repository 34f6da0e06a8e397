"""What a shell is offered: the console script is asked as bash asks it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from compress import recipes
from compress.cli import app, complete

ROOT = Path(__file__).resolve().parent.parent
RECIPE = 'name = "r"\n[[students]]\nname = "small"\nmodel = "builtin:cnn-8"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two runs, a folder that is none, and a recipe."""
    for name in ("digits", "sst2"):
        package = tmp_path / "runs" / name / "packages" / f"{name}-int8"
        package.mkdir(parents=True)
        (package / "manifest.json").write_text("{}")
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "mine.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _offered(*words: str) -> list[str]:
    """What bash gets for the last of `words` after `limbeck`."""
    environ = {
        **os.environ,
        "_LIMBECK_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["limbeck", *words]),
        "COMP_CWORD": str(len(words)),
        "PYTHONPATH": str(ROOT),
    }
    start = "import sys; sys.argv[0] = 'limbeck'; from compress.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", start], env=environ, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_bash_is_offered_commands_runs_recipes_and_variants(here: Path) -> None:
    assert {"clean", "config"} <= set(_offered("c"))
    assert _offered("verify", "runs/d") == ["runs/digits"]
    assert _offered("verify", "runs/sst2", "--variant", "sst") == ["sst2-int8"]
    assert _offered("run", "m") == ["mine.toml", "mnist", "mnist-small"]


def test_runs_in_the_usual_folder_are_offered_at_once(here: Path) -> None:
    assert complete.runs("") == complete.runs("ru") == ["runs/digits", "runs/sst2"]
    assert complete.runs("runs/s") == ["runs/sst2"]
    assert complete.runs("x") == []


def test_packages_are_offered_once_their_run_is_typed(here: Path) -> None:
    assert complete.packages("runs/sst2") == ["runs/sst2", "runs/sst2/packages/sst2-int8"]
    assert complete.packages("runs/sst2/packages/") == ["runs/sst2/packages/sst2-int8"]


def test_models_are_those_of_the_recipe(here: Path) -> None:
    assert _offered("data", "preview", "mine.toml", "--model", "s") == ["small"]
    assert _offered("data", "preview", "nothing.toml", "--model", "s") == []


def test_a_recipe_of_limbecks_own_goes_by_its_name_unless_a_file_has_it(here: Path) -> None:
    assert recipes.named(Path("digits")) == ROOT / "compress" / "recipes" / "digits.toml"
    assert {"cifar10", "digits", "sst2"} <= set(recipes.names())
    for path in (Path("mine.toml"), Path("nothing"), Path("x/digits")):
        assert recipes.named(path) == path
    (here / "digits").write_text(RECIPE)
    assert recipes.named(Path("digits")) == Path("digits")


@pytest.mark.parametrize("command", ["run", "repeat", "tune", "optimize"])
def test_commands_take_an_own_recipe_by_its_name(here: Path, command: str) -> None:
    commands: Any = get_command(app)
    for given, taken in (("digits", recipes.FOLDER / "digits.toml"), ("mine.toml", Path("mine.toml"))):
        assert commands.commands[command].make_context(command, [given]).params["recipe"] == taken


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    environ = {**os.environ, "_LIMBECK_COMPLETE": f"source_{shell}", "PYTHONPATH": str(ROOT)}
    start = "import sys; sys.argv[0] = 'limbeck'; from compress.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", start], env=environ, capture_output=True, text=True, check=False)
    assert "limbeck" in done.stdout
