"""`limbeck serve`, `verify`, `loadtest` and `tune-serve`: a run's package over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.complete import variants
from compress.cli.shared import NOTHING_MET, Debug, RunFolder, Target, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "limbeck serve runs/digits",
        "limbeck serve runs/digits --port 8080 --also old=runs/digits-1",
        "limbeck serve runs/digits --models packages --watch",
    )
)
def serve(
    target: Target = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 3000,
    also: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="A further run or package, served under a name.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="A folder of packages that can be loaded while the server runs. [default: none]")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Serve what lies in that folder, and follow it.")] = False,
    debug: Debug = False,
) -> None:
    """Serve a model package over HTTP, with a page to try it.

    As `bentoml serve` does. Further ones answer at /models/NAME/classify. With a token in LIMBECK_ADMIN_TOKEN, `limbeck
    reload` and other admin requests change what is served, without a failed request.
    """
    from serve.launch import launch

    launch(target, host, port, also or (), models, watch)


@app.command(
    name="reload",
    epilog=examples(
        "limbeck reload digits",
        "limbeck reload digits --package digits-2 --url http://127.0.0.1:8080",
    ),
)
def reload_model(
    name: Annotated[str, typer.Argument(help="The name under which the model is served.")],
    package: Annotated[
        str | None, typer.Option(help="A folder in the server's folder of models. [default: where it came from]")
    ] = None,
    url: Annotated[str, typer.Option(help="The running server.")] = "http://127.0.0.1:3000",
    debug: Debug = False,
) -> None:
    """Have a running server load a model, or load it again.

    Every request is answered by the old or by the new. The admin token is read from LIMBECK_ADMIN_TOKEN or
    LIMBECK_ADMIN_TOKEN_FILE.
    """
    from serve.admin_client import load_model

    answer = load_model(url, name, package)
    model = next(model for model in answer["models"] if model["name"] == name)
    workers = answer["workers"]
    print(f"{name} is model {model['id']} on {workers['changed']} of {workers['of']} workers")


@app.command(
    epilog=examples(
        "limbeck verify runs/digits",
        "limbeck verify runs/digits --variant small-fp32",
        "limbeck verify runs/digits --url http://127.0.0.1:3000",
    )
)
def verify(
    folder: RunFolder,
    url: Annotated[str | None, typer.Option(help="A running server. [default: one is started]")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which package. [default: the run's selection]", autocompletion=variants)
    ] = None,
    debug: Debug = False,
) -> None:
    """Replay the whole test split over HTTP: nothing may differ.

    Every label must be equal, every score within 1e-5. Goes through every kind of body that the server takes. Exit code
    3: something differed.
    """
    from compress.verify import verify_run

    if not verify_run(folder, url, variant):
        raise typer.Exit(NOTHING_MET)


@app.command(
    epilog=examples(
        'limbeck loadtest runs/digits --slo "p99<20ms,errors<0.1%" --at-least 200',
        "limbeck loadtest runs/digits --variant all --repeats 1",
    )
)
def loadtest(
    folder: RunFolder,
    slo: Annotated[
        str, typer.Option(help="What must hold: percentiles of latency, share of errors.")
    ] = "p99<20ms,errors<0.1%",
    at_least: Annotated[
        float | None, typer.Option(min=0, help="Requests per second that must hold. [default: any rate]")
    ] = None,
    body: Annotated[
        str | None, typer.Option(help="How an item is sent: json, multipart, raw. [default: raw for images]")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Another package of the run; all: each that was accepted. [default: the selection]",
            autocompletion=variants,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="How many searches; the lowest result counts.")] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds of each window that must hold. [default: what a 99th percentile needs]"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Find the highest rate of requests that keeps an objective.

    Serves the run's selection on loopback, doubles an open-loop rate until the objective breaks, bisects to 5 %, and
    asks for three windows that hold. With --variant all, each accepted package in turn, for the report's chart of
    accuracy against requests a second.

    Exit code 3: no rate keeps the objective, or none that is high enough; of several packages, for the selection.
    """
    from compress.loadtest import Asked, loadtest_all
    from compress.loadtest import loadtest as find_rate

    asked = Asked(slo, at_least, body, repeats, seconds, variant=None if variant == "all" else variant)
    if not (loadtest_all if variant == "all" else find_rate)(folder, asked):
        raise typer.Exit(NOTHING_MET)


@app.command(name="tune-serve", epilog=examples('limbeck tune-serve runs/digits --slo "p99<20ms" --minutes 10'))
def tune_serve(
    folder: RunFolder,
    slo: Annotated[
        str, typer.Option(help="What must hold: percentiles of latency, share of errors.")
    ] = "p99<20ms,errors<0.1%",
    minutes: Annotated[float, typer.Option(min=0, help="Minutes after which no further setting is tried.")] = 20.0,
    body: Annotated[
        str | None, typer.Option(help="How an item is sent: json, multipart, raw. [default: raw for images]")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds of each window that confirms. [default: what a 99th percentile needs]"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Find the best workers, threads and batching for a package.

    Those that hold the most requests under an objective on this machine. Batching is tried only where the package's
    answers do not depend on it. What is found is written into the package's serving.json, which `limbeck serve` and
    `bentoml serve` follow; each trial into loadtest/tune-serve.json of the run.

    Exit code 3: no setting keeps the objective; serving.json stays as it is.
    """
    from compress.loadtest import TuneAsked
    from compress.loadtest import tune_serve as find_setting

    if not find_setting(folder, TuneAsked(slo, minutes, body, seconds=seconds)):
        raise typer.Exit(NOTHING_MET)
