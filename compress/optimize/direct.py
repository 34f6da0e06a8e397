"""A recipe for a classifier that is there already: `limbeck optimize --model X --data SOURCE`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from compress.evidence.drops import smallest_margin_points
from compress.init.look import look
from compress.init.plan import plan
from compress.recipe import TEACHER
from compress.rundir import RUN_JSON, read_about
from serve.errors import UserError
from train.data import DataConfig, load_data
from train.fit_config import OF_LABELS
from train.models import SOURCES
from train.sources import expand, source_names

_PATHS = ("csv", "jsonl", "parquet", "imagefolder")  # sources that are a kind and a path
_USUAL_MARGIN = 2.0  # points
# What a search takes from a run besides its students. Whatever limits or marks an answer there does so here.
_OF_A_RUN = (
    *("name", "seed", "task", "data", "graph", "quantize", "evaluate", "accept", "calibrate", "abstain", "serving"),
    *("report", "card"),
)


def direct_content(model: str, data: str | None) -> tuple[dict[str, Any], list[str]]:
    """A recipe's content for a trained model and its data, and what was chosen and why. Raises UserError.

    A model of an earlier run brings that run's data with it, with the same splits.
    """
    named = _model_name(model)
    run = _run_of(named)
    if run is not None and (data is None or data == run["data"]["source"]):
        return _from_run(named, run)
    if data is None:
        raise UserError("--model needs --data", "for example --data csv:reviews.csv, or a path")
    kind, _, place = data.partition(":")
    path = expand(place if kind in _PATHS and place else data)
    if not path.exists() and kind not in source_names():
        hint = f"give a file, a folder or a source such as csv:reviews.csv; paths count from {Path.cwd()}"
        raise UserError(f"--data {data}: there is no such file or folder", hint)
    content, said = _from_path(path, named) if path.exists() else _from_source(data, named)
    said.append(
        "whatever this model was trained on elsewhere may be among these validation and test items: its own accuracy "
        "is flattered then, and the drop of those that it teaches looks larger than it is"
    )
    return content, said


def _model_name(model: str) -> str:
    """`model` as a recipe names it; a bare path is a run's model or a folder of safetensors."""
    if model.partition(":")[0] in SOURCES:
        return model
    path = Path(model)
    if path.suffix == ".onnx":
        return f"onnx:{model}"
    if path.is_dir():
        trained = (path / "spec.json", path / TEACHER / "spec.json")
        return f"run:{model}" if any(file.is_file() for file in trained) else f"hf:{model}"
    kinds = ", ".join(f"{kind}:" for kind in ("run", "hf", "pkg", "onnx"))
    raise UserError(f"there is no model at '{model}'", f"give a folder, or one of {kinds}, for example run:runs/digits")


def _run_of(model: str) -> dict[str, Any] | None:
    """The recipe of the run that trained `model`, where it is one's teacher."""
    kind, _, place = model.partition(":")
    folder = expand(place)
    if kind != "run" or not (folder / RUN_JSON).is_file():
        return None
    recipe: dict[str, Any] | None = read_about(folder).get("recipe")
    return recipe


def _from_run(model: str, recipe: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    kept = {key: recipe[key] for key in _OF_A_RUN if key in recipe}
    students = [student for student in recipe.get("students", []) if student["role"] == "student"]
    alone = [student for student in students if _learns_from_the_teacher(student)]
    content = {**_without_nones(kept), TEACHER: {"model": model, "fit": {"epochs": 0}}}
    if alone:
        content["students"] = [_without_nones({**student, "fit": _first(student)}) for student in alone]
    said = [f"data, splits, limits and students are those of the run that trained {model}"]
    refitted = [student["name"] for student in alone if student["fit"].get("final_refit")]
    if refitted:
        said.append(f"without final_refit of {', '.join(refitted)}, since validation judges the search")
    return content, said


def _first(student: dict[str, Any]) -> dict[str, Any]:
    """A student's training without the refit after it, and without what its control alone learned by."""
    taught_alone = student["distill"] is not None and student["distill"].get("alpha") == 1.0
    left_out = {"final_refit", *(OF_LABELS if taught_alone else ())}
    return {key: value for key, value in student["fit"].items() if key not in left_out}


def _learns_from_the_teacher(student: dict[str, Any]) -> bool:
    return student["distill"] is None or student["distill"].get("teachers", [TEACHER]) == [TEACHER]


def _from_path(path: Path, model: str) -> tuple[dict[str, Any], list[str]]:
    """As `limbeck init` would write it, with a teacher that is not trained."""
    made = plan(look(path), re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:50] or "data", model)
    teacher: dict[str, Any] = {"model": model, "fit": {"epochs": 0}}
    if made.findings.task == "text" and model.partition(":")[0] in ("hf", "pkg") and made.teacher.options:
        teacher["options"] = made.teacher.options
    table: dict[str, Any] = {"source": made.findings.source}
    table |= {key: reason.value for key, reason in made.keys.items()}
    if made.repairs:
        table["repair"] = dict.fromkeys(made.repairs, "drop")
    content = {
        "name": made.name,
        "task": made.findings.task,
        "data": table,
        TEACHER: teacher,
        "quantize": {"precisions": made.precisions.value},
        "accept": {"max_drop_points": made.margin.value},
        **({"evaluate": made.evaluate} if made.evaluate else {}),
    }
    said = [f"{key} = {reason.value}: {reason.why}" for key, reason in made.keys.items()]
    said += [f"repair {key}: {found}" for key, found in made.repairs.items()]
    said.append(f"may lose: {made.margin.value:g} {made.margin.why}; --max-drop says otherwise")
    return content, said


def _from_source(source: str, model: str) -> tuple[dict[str, Any], list[str]]:
    """A source that is no path, such as digits or hf:ID: with the splits that it has, or the usual ones."""
    data = load_data(DataConfig(source=source), 0)
    smallest = smallest_margin_points(len(data.splits["test"]))
    margin = min(100.0, max(_USUAL_MARGIN, round(1.5 * smallest, 1)))
    content = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-._")[:50] or "data",
        "task": data.task,
        "data": {"source": source},
        TEACHER: {"model": model, "fit": {"epochs": 0}},
        "accept": {"max_drop_points": margin},
    }
    items = f"{len(data.splits['test']):,} test items"
    why = f"with {items} not even a perfect copy could meet a margin under {smallest:.2f}"
    return content, [f"may lose: {margin:g} points; {why}; --max-drop says otherwise"]


def _without_nones(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nones(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_nones(inner) for inner in value]
    return value
