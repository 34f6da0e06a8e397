from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_run import RECIPE, Ran

from compress import cli, pipeline
from compress.recipe_file import load_recipe, parse_recipe
from serve.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Limbeck = Callable[..., Ended]


@pytest.fixture
def limbeck(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Limbeck:
    """The console script, in this process."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["limbeck", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def assert_explained(ended: Ended, error: str, hint: str = "") -> None:
    """Two lines on stderr, `error: ...` and `hint: ...`, nothing on stdout, exit code 2."""
    lines = ended.err.splitlines()
    assert (ended.code, ended.out, len(lines)) == (2, "", 2), ended
    assert re.search(f"^error: .*{error}", lines[0]), lines[0]
    assert re.search(f"^hint: .*{hint}", lines[1]), lines[1]


CONTROL = '{name = "c", model = "builtin:cnn-8", role = "control", distill = {}}'
WRONG = {
    "unknown table": ("quantise.precisions=[]", "unknown key 'quantise'", "did you mean 'quantize'"),
    "unknown key": ("teacher.fit.epoch=3", "unknown key 'teacher.fit.epoch'", "did you mean 'epochs'"),
    "unknown key of a student": ("students.small.modle=3", "'students.small.modle'", "did you mean 'model'"),
    "unknown key in an optional table": ("students.small.distill.temprature=3", "temprature", "'temperature'"),
    "unknown option": (
        "teacher.options.hiden=3",
        "'builtin:cnn-8x16' does not take option hiden",
        "did you mean 'hidden'",
    ),
    "wrong option": (
        "teacher.options.hidden=-3",
        "does not take option hidden = -3: expected 0 or more",
        "options: hidden, dropout",
    ),
    "unknown model": ("teacher.model=builtin:resnt20", "unknown builtin model 'resnt20'", "did you mean 'resnet20'"),
    "unknown kind of model": ("teacher.model=bultin:resnet20", "unknown kind of model", "did you mean 'builtin'"),
    "no kind of model": ("teacher.model=resnet20", "unknown kind of model in 'resnet20'", "builtin:"),
    "impossible depth": ('teacher={model = "builtin:resnet21"}', "there is no resnet21", "take 8, 20"),
    "no width": ("teacher.model=builtin:cnn-0", "unknown builtin model 'cnn-0'", "known: cnn-16x32"),
    "unknown source": ("data.source=digit", "unknown data source 'digit'", "did you mean 'digits'"),
    "digits with a path": ("data.source=digits:here", "takes no path", "digits"),
    "a class twice": ('data.classes=["0", "1", "1"]', "data: classes names '1' twice", "once"),
    "columns of no file": ('data.label_column="y"', "label_column says how files are read, and source = 'dig", ""),
    "no such data": ("data.source=mnist:nowhere", "no MNIST in nowhere", "LIMBECK_DATA"),
    "unset variable": ("data.source=mnist:${LIMBECK_NOT_SET}/x", "LIMBECK_NOT_SET, which is not set", "export"),
    "splits too large": ("data.calibration=1500", "the train split would hold 0 of 1797 items", "1500"),
    "margin too small": ("accept.max_drop_points=0.5", "contradicts a test split of 539 items", "at least 0.71 points"),
    "no margin": (
        "accept.max_drop_points=0",
        "accept.max_drop_points: expected a number above 0, got 0",
        "config schema",
    ),
    "target too high": (
        "accept={target_percent = 99.9, max_drop_points = 0.5}",
        "target_percent = 99.9 less max_drop_points = 0.5 contradicts a test split of 539 items: .* only 99.29 %",
        "allow at least 0.61 points",
    ),
    "no target": (
        "accept.target_percent=0",
        "accept.target_percent: expected a number above 0, got 0",
        "config schema",
    ),
    "target over 100": ("accept.target_percent=101", "expected 100 or less, got 101", "config schema"),
    "unknown label": ("accept.metric=recall:ten", "there is no label 'ten'", "known: 0, 1"),
    "unknown metric": ("accept.metric=acuracy", "unknown metric 'acuracy'", ""),
    "two models of one name": ("students.small.name=teacher", "two models are called 'teacher'", ""),
    "a name that is a path": ("students.small.name=../up", "students.0.name = .../up. is no name", "letters, digits"),
    "a control that is taught": (f"students=[{CONTROL}]", "is a control, so it cannot have", ""),
    "no fp32": ('quantize.precisions=["fp16"]', "precisions must hold 'fp32'", ""),
    "one precision twice": ('quantize.precisions=["fp32", "fp32"]', "precisions names .fp32. twice", ""),
    "no batch of one": ("evaluate.batch_sizes=[8]", "evaluate: batch_sizes lacks 1", "add 1 to batch_sizes"),
    "no single thread": ("evaluate.threads=[2]", "evaluate: threads lacks 1", "add 1 to threads"),
    "a task that is not there": ("task=audio", "task: .*'image'.*, got 'audio'", ""),
    "change without a value": ("teacher.fit.epochs", "expected key=value", "teacher.fit.epochs=3"),
    "change of an unknown student": ("students.smal.fit.epochs=1", "there is no 'smal'", "did you mean 'small'"),
    "change inside a number": ("seed.x=1", "'seed.x' is not a key of a table", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_explained_before_anything_is_written(
    limbeck: Limbeck, recipe: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("LIMBECK_NOT_SET", raising=False)
    change, error, hint = WRONG[name]
    assert_explained(limbeck("run", recipe, "--set", change, "--out", recipe.parent / "run"), error, hint)
    assert not (recipe.parent / "run").exists()


def test_a_control_may_not_take_the_name_that_a_students_control_gets(limbeck: Limbeck, recipe: Path) -> None:
    recipe.write_text(RECIPE + '[[students]]\nname = "small-alone"\nmodel = "builtin:cnn-8"\n')
    assert_explained(limbeck("run", recipe, "--dry-run"), "'small-alone' is the name of the control", "rename")


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"name = tiny", "is not TOML"), (b"\xff\xfe", "is not TOML"), (b"", "'name' is missing")],
)
def test_a_file_that_is_no_recipe(limbeck: Limbeck, recipe: Path, content: bytes, error: str) -> None:
    recipe.write_bytes(content)
    assert_explained(limbeck("run", recipe), error)


def test_a_recipe_that_is_not_there(limbeck: Limbeck, recipe: Path) -> None:
    assert_explained(limbeck("run", recipe.with_name("tinny.toml")), "no recipe at", "did you mean .*tiny.toml")
    assert_explained(limbeck("run", recipe.parent), "cannot read the recipe .*: Is a directory")


def test_a_recipe_that_is_not_there_beside_no_other_gets_a_hint_all_the_same(limbeck: Limbeck, tmp_path: Path) -> None:
    assert_explained(limbeck("run", tmp_path / "tiny.toml"), "no recipe at")


def test_a_run_directory_that_cannot_be_made(limbeck: Limbeck, recipe: Path) -> None:
    assert_explained(limbeck("run", recipe, "--out", recipe / "run"), "cannot write the run directory", "--out")


def test_a_folder_whose_record_is_broken_is_left_alone(limbeck: Limbeck, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{")
    assert_explained(limbeck("run", recipe, "--out", tmp_path / "run"), "is not a run's record", "delete this one")
    assert (tmp_path / "run/run.json").read_text() == "{"


def test_a_second_command_in_the_same_folder_waits_for_no_one(limbeck: Limbeck, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run/.lock"):
        assert_explained(limbeck("run", recipe, "--out", tmp_path / "run"), "another limbeck is at work", "--out")
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_report_of_a_folder_that_is_no_run(limbeck: Limbeck, tmp_path: Path) -> None:
    assert_explained(limbeck("report", tmp_path), "no report in", "limbeck run")


def test_a_corrupt_package_is_not_served(limbeck: Limbeck, tiny: Ran, tmp_path: Path) -> None:
    package = Path(shutil.copytree(tiny.folder / "packages/small-fp32", tmp_path / "package"))
    model = bytearray((package / "model.onnx").read_bytes())
    model[1000] ^= 1
    (package / "model.onnx").write_bytes(model)
    assert_explained(limbeck("serve", package), "model.onnx is corrupt: sha256", "copy the package again")


def test_a_recipe_whose_limits_nothing_meets_ends_with_code_3(
    limbeck: Limbeck, tiny: Ran, recipe: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "run"))
    ended = limbeck("run", recipe, "--out", folder, "--set", "accept.max_size_mb=0.000001")
    assert ended.code == 3
    assert ended.out.startswith("Not accepted: ")
    assert "serve it" not in ended.out
    assert json.loads((folder / "report.json").read_text())["selected"] is None


def test_a_run_that_succeeds_says_how_to_serve_it(limbeck: Limbeck, tiny: Ran, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "run"))
    (folder / "report.html").unlink()
    ended = limbeck("run", recipe, "--out", folder)
    assert ended.code == 0
    assert ended.out.splitlines()[1:] == [f"report: {folder / 'report.html'}", f"serve it: limbeck serve {folder}"]
    assert "teacher unchanged" in ended.err
    assert "<html" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert limbeck("report", folder).code == 0
    assert "<html" in (folder / "report.html").read_text()


def test_a_dry_run_prints_the_whole_recipe_and_writes_nothing(
    limbeck: Limbeck, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    ended = limbeck("run", recipe, "--dry-run", "--set", "seed=7")
    assert ended.code == 0
    assert parse_recipe(tomllib.loads(ended.out), "printed") == load_recipe(recipe, ["seed=7"])
    assert 'name = "small-alone"' in ended.out
    assert "runs/tiny" in ended.err
    assert list(recipe.parent.iterdir()) == [recipe]


NOT_THERE = {
    "table": (
        'data.source="csv:nowhere.csv"',
        "no file or folder at nowhere.csv",
        "in .: did you mean|working dir|known",
    ),
    "table without train": ('data.source="parquet:empty"', "empty has no train.parquet; it holds no .parquet", ""),
    "images": ('data.source="imagefolder:photos"', "no file or folder at photos", ""),
    "a file for images": ('data.source="imagefolder:tiny.toml"', "tiny.toml is a file, not a folder of images", ""),
    "mnist": ('data.source="mnist:empty"', "no MNIST in empty", "LIMBECK_DATA"),
    "data set": ('data.source="hf:./nowhere"', "no file or folder at nowhere", ""),
    "kind": ('data.source="xls:table"', "unknown data source 'xls'", ""),
    "unlabelled": (
        'data.unlabelled={source = "imagefolder:more"}',
        "no file or folder at more .data.unlabelled.source = 'imagefolder:more'",
        "",
    ),
    "unlabelled kind": ('data.unlabelled={source = "digits"}', "'digits' is no source of items without labels", ""),
    "package": ('teacher={model = "pkg:no_such_thing/model"}', "there is no Python package 'no_such_thing'", "pip"),
    "model folder": ('teacher={model = "hf:./nowhere"}', "no folder nowhere", "config.json"),
    "run": ('teacher={model = "run:nowhere"}', "no trained model in nowhere", ""),
    "weights": ('teacher={model = "hf:config-only"}', "there is no model.safetensors in config-only", "weights"),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_a_dry_run_looks_whether_data_and_models_are_there(
    limbeck: Limbeck, recipe: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(recipe.parent)
    for folder in ("empty", "config-only"):
        Path(folder).mkdir()
    Path("config-only/config.json").write_text('{"model_type": "vit"}')
    change, error, hint = NOT_THERE[name]
    assert_explained(limbeck("run", recipe, "--dry-run", "--set", change), error, hint)


def test_a_dry_run_says_what_so_many_processes_could_not_share(limbeck: Limbeck, recipe: Path) -> None:
    ended = limbeck("run", recipe, "--processes", 3, "--dry-run")
    assert_explained(ended, "fit.batch_size = 64 is what all processes see together, and 3 cannot", "63 or 66")


def test_changes_reach_a_key_by_path_a_student_by_name_or_number_and_all_by_a_star(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[[students]]\nname = "other"\nmodel = "builtin:cnn-8"\n')
    changed = load_recipe(
        recipe,
        [
            "teacher.fit.epochs=9",
            "students.*.fit.epochs=5",
            "students.other.fit.batch_size=7",
            "students.0.fit.batch_size=6",
            "accept.metric=macro_f1",
            'quantize.precisions=["fp32"]',
        ],
    )
    students = {student.name: student.fit for student in changed.students}
    assert changed.teacher.fit.epochs == 9
    assert {name: (fit.epochs, fit.batch_size) for name, fit in students.items()} == {
        "small": (5, 6),
        "small-alone": (5, 6),
        "other": (5, 7),
    }
    assert (changed.accept.metric, changed.quantize.precisions) == ("macro_f1", ("fp32",))


def test_the_schema_is_json_and_knows_every_table(limbeck: Limbeck) -> None:
    schema = json.loads(limbeck("config", "schema").out)
    assert {"data", "teacher", "students", "quantize", "evaluate", "accept"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_debug_shows_where_an_error_came_from(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["limbeck", "run", str(recipe), "--set", "nonsense", "--debug"])
    with pytest.raises(UserError, match="expected key=value"):
        cli.main()


def test_a_bug_is_called_one(limbeck: Limbeck, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: {}["lost"])
    ended = limbeck("run", recipe)
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "error: KeyError: 'lost'",
        "hint: this is a bug in limbeck; the same command with --debug shows where",
    ]


def test_control_c_says_how_to_go_on(limbeck: Limbeck, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", stopped)
    ended = limbeck("run", recipe)
    assert (ended.code, ended.err.strip()) == (130, "stopped; the same command goes on from here")


def test_help_and_report_answer_without_the_heavy_libraries() -> None:
    check = (
        "import sys; from compress.cli import main; sys.argv[1:] = ['run', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, sorted({'torch', 'transformers', 'bentoml', 'onnxruntime', 'sklearn'} & set(sys.modules)))\n"
        "import compress.report.write\n"
        "print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--dry-run" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["0 []", "[]"]


def test_the_module_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compress", "report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: no report in {tmp_path}"


@pytest.mark.parametrize("command", ["tune", "repeat"])
def test_a_launcher_of_several_processes_is_for_run_alone(
    limbeck: Limbeck, recipe: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_explained(limbeck(command, recipe), f"`limbeck {command}` trains in one process", "without torchrun")
