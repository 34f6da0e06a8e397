"""The main flow: recipe -> teacher -> students -> packages -> choice on validation -> verdict on test -> report.

`run` is the whole of it; what each step does with the run directory is in stages/.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch

from compress.console import Console
from compress.environment import git_commit, hardware, versions
from compress.evidence.abstain import check_promise
from compress.evidence.assemble import assemble
from compress.evidence.drops import check_margin, metric_rows
from compress.lineage import with_lineage
from compress.origins import told_of_origins
from compress.processes import leading
from compress.quantize.providers import check_provider
from compress.recipe import Recipe
from compress.report.schema import Choice, Report, RunInfo
from compress.report.write import write_payloads, write_report
from compress.rundir import RunDir, open_run
from compress.stages.choosing import choose_variant, gather_evidence
from compress.stages.context import RunContext
from compress.stages.measuring import predict_split, time_variants, weigh_variants
from compress.stages.packages import make_held_out_packages, make_packages
from compress.stages.training import train_models
from train.curves import check_tensorboard
from train.data import Data, load_data
from train.processes import world


def run(
    recipe: Recipe,
    folder: Path,
    console: Console,
    command: str | None = None,
    tensorboard: bool = False,
    shard: bool = False,
    frozen: Choice | None = None,
) -> Report:
    """Do what the recipe says in `folder`, resuming what was begun there. Raises UserError.

    `tensorboard` writes the curves of what is trained into `folder`/tensorboard/MODEL.
    `shard` splits each model over all processes while it is trained.
    `frozen` is a choice that a search made on the validation split of these data; without it, it is made here.
    The report's `selected` is None when nothing met the constraints; everything is written all the same.
    """
    if tensorboard:
        check_tensorboard()
    data = with_lineage(recipe, load_data(recipe.data, recipe.seed, recipe.task))
    for note in [*data.notes, *filter(None, [check_provider(recipe.quantize)])]:
        console.say(note)
    check_margin(recipe.accept, int(metric_rows(recipe.accept.metric, data.judged, data.classes).sum()))
    about = describe(recipe, data, command)
    check_promise(recipe.abstain, len(data.splits["validation"]))
    with leading(recipe, shard) as announce, open_run(folder, about, console.stage, announce) as rundir:
        context = RunContext(recipe, data, rundir, console, tensorboard, shard)
        fits = train_models(context)
        before = make_held_out_packages(context)  # of refitted models, which have seen validation
        packages = make_packages(context, before)
        predict_split(context, "validation")
        latency = time_variants(context)
        memory = weigh_variants(context)
        choice = choose_variant(
            context, packages, before, latency, frozen
        )  # frozen here: the test split is scored after it
        predict_split(context, "test")
        evidence = gather_evidence(context, fits, packages, latency, memory)
        info, shown = run_info(about, rundir), recipe.report.examples
        report = assemble(info, recipe.accept, data, choice, evidence, recipe.seed, context.threads, shown=shown)
        report = report.model_copy(update=told_of_origins(recipe))
        write_payloads(report, data, folder)
        write_report(report, folder)
        context.forget_removed()
    return report


def describe(recipe: Recipe, data: Data, command: str | None) -> dict[str, Any]:
    """What run.json says beside the records of the stages."""
    return {
        "schema": 1,
        "name": recipe.name,
        "seed": recipe.seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "recipe": recipe.model_dump(mode="json"),
        "versions": versions(),
        "hardware": hardware(),
        "torch_threads": torch.get_num_threads(),  # sums in another order give other weights
        "processes": world().size,
        "git_commit": git_commit(),
        "data": {
            "fingerprint": data.fingerprint,
            "splits": data.fingerprints,
            "notes": data.notes,
            **({"unlabelled": data.unlabelled.fingerprint} if data.unlabelled else {}),
        },
    }


def run_info(about: dict[str, Any], rundir: RunDir) -> RunInfo:
    """The report's part on how the run was made."""
    return RunInfo(
        name=about["name"],
        created=about["created"],
        seed=about["seed"],
        limbeck=about["versions"].get("limbeck", "not installed"),
        git_commit=about["git_commit"],
        versions=about["versions"],
        hardware=about["hardware"],
        stages=rundir.seconds(),
        command=about["command"],
    )
