"""The end of a search: the choice frozen on validation, and the recipe that makes it."""

from __future__ import annotations

import tomli_w

from compress.evidence.choose import Measured, choose, problems_of
from compress.optimize.bench import Bench
from compress.optimize.config import OptimizeConfig, StudentSpace
from compress.optimize.records import Trial, excess_of, nearest_of
from compress.optimize.trials import Trials
from compress.quantize.config import Quantize
from compress.recipe import Recipe, Student
from compress.report.schema import Choice
from compress.teachers import teachers_of
from serve.manifest import Precision, ServingConfig
from train.unlabelled import UnlabelledConfig

_TIMED_AGAIN = 8  # feasible trials, the best ones


def freeze(bench: Bench, trials: Trials) -> Choice:
    """The choice among all complete trials, once the best feasible ones have been timed beside one another."""
    _time_again(bench, trials)
    accept, data = bench.recipe.accept, bench.data
    measured = [
        Measured(found.variant, found.scores, found.timed.latency, found.size_bytes, problems=found.problems)
        for found in trials.measured.values()
    ]
    validation, test = data.splits["validation"], len(data.splits["test"])
    choice = choose(accept, measured, bench.teacher_scores(), validation.labels, data.classes, test, bench.recipe.seed)
    eligible = sum(row.eligible for row in choice.ranking)
    tried = f"{len(trials.all)} trials, of which {eligible} feasible on validation"
    if eligible:
        return choice.model_copy(update={"reason": f"{choice.reason}. Found by limbeck optimize among {tried}"})
    nearest = nearest_of(trials.all)
    assert nearest is not None  # the teacher's fp32 package is complete
    reason = f"limbeck optimize found nothing feasible on validation among {tried}; {nearest.id} came nearest"
    return choice.model_copy(update={"id": nearest.id, "reason": f"{reason}: {nearest.why}"})


def _time_again(bench: Bench, trials: Trials) -> None:
    """Timings of one run can be compared; those of the search come from different hours."""
    feasible = sorted((trial for trial in trials.all if trial.feasible), key=trials.aim)[:_TIMED_AGAIN]
    if not feasible:
        return
    found = [trials.measured[trial.id] for trial in feasible]
    timed = bench.time_together(found, bench.recipe.evaluate.latency_samples)
    accept = bench.recipe.accept
    for trial, one in zip(feasible, found, strict=True):
        latest = timed[trial.id]
        trials.measured[trial.id] = one.with_timing(latest)
        trial.p50_ms, trial.p95_ms = latest.latency.total_p50, latest.latency.total_p95
        trial.relative = latest.relative
        problems = problems_of(accept, trial.drop_upper or 0.0, latest.latency, one.size_bytes) + list(one.problems)
        trial.feasible = not problems
        trial.why = "; ".join(problems) or trial.why
        trial.excess = excess_of(accept, trial.drop_upper, trial.p95_ms, trial.size_bytes)


def resolved_recipe(recipe: Recipe, config: OptimizeConfig, chosen: Trial, student: Student | None) -> Recipe:
    """The recipe that makes the choice: its student alone, its precision beside fp32, its runtime setting.

    What the students of the search learn from stays, so that they can be searched again.
    """
    usual = recipe.serving or ServingConfig()
    serving = usual.model_copy(update={"threads": chosen.threads, "graph_level": chosen.graph_level})
    threads = tuple(sorted({1, chosen.threads, *recipe.evaluate.threads}))
    precisions: tuple[Precision, ...] = ("fp32",) if chosen.precision == "fp32" else ("fp32", chosen.precision)
    left = [one for one in (student, *(config.students or ())) if one is not None]
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"unlabelled": _unlabelled(recipe, left)}),
            "students": () if student is None else (student.model_copy(update={"control": False}),),
            "teachers": tuple(one for one in recipe.teachers if any(one.name in teachers_of(it) for it in left)),
            "quantize": Quantize(
                precisions=precisions,
                provider=recipe.quantize.provider,
                **recipe.quantize.deciding(chosen.precision),  # what the others heed would be refused
            ),
            "evaluate": recipe.evaluate.model_copy(update={"threads": threads}),
            "serving": serving if recipe.serving is not None or serving != usual else None,
            "optimize": config,
        }
    )


def _unlabelled(recipe: Recipe, left: list[Student | StudentSpace]) -> UnlabelledConfig | None:
    """[data.unlabelled], unless none of those that are left learns from it."""
    lessons = [one.distill for one in left if one.distill is not None]
    return recipe.data.unlabelled if any(lesson.items != "labelled" for lesson in lessons) else None


def as_toml(recipe: Recipe, head: str) -> str:
    """A recipe as a file, without what stands at its default; `head` is its first comment."""
    content = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    content = {"name": recipe.name, "task": recipe.task, "seed": recipe.seed, **content}
    for student in content.get("students", []):
        student["control"] = False
    lines = "\n".join(f"# {line}" for line in head.splitlines())
    return f"{lines}\n\n{tomli_w.dumps(content)}"
