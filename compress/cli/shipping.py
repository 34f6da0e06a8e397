"""`limbeck bento`, `limbeck k8s`: a package as others run it."""

from __future__ import annotations

from typing import Annotated

import typer

from compress.cli.shared import Debug, Target

app = typer.Typer()


@app.command()
def bento(
    target: Target = None,
    name: Annotated[str | None, typer.Option(help="The Bento's name. [default: limbeck-FOLDER]")] = None,
    debug: Debug = False,
) -> None:
    """Build a Bento: the server, one model package and the versions of what they need; no torch, nothing of the run.

    `bentoml serve TAG` runs it, `bentoml containerize TAG` makes an image of it.
    """
    from compress.bento import build_bento
    from compress.report.wording import size

    built = build_bento(target, name)
    inside = f"the model package {size(built.package_bytes)}, {len(built.requirements)} requirements pinned"
    print(f"{built.tag}: {size(built.size_bytes)} ({inside})")
    print(built.path)
    print(f"serve it: bentoml serve {built.tag}")
    print(f"an image of it: bentoml containerize {built.tag}")


@app.command()
def k8s(
    image: Annotated[str, typer.Option(help="The image that serves it, with its version.", metavar="PATH:TAG")],
    target: Target = None,
    name: Annotated[str | None, typer.Option(help="Of all objects. [default: limbeck-FOLDER]")] = None,
    namespace: Annotated[str | None, typer.Option(help="[default: the one that kubectl is in]")] = None,
    replicas: Annotated[int, typer.Option(help="Pods at the least.")] = 2,
    max_replicas: Annotated[int, typer.Option(help="Pods at the most.")] = 10,
    token_secret: Annotated[
        str | None, typer.Option(help="A Secret whose key `tokens` holds bearer tokens, one on each line.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write Kubernetes manifests for a package to standard output: Deployment, Service, autoscaler, disruption budget.

    limbeck k8s runs/digits --image registry.example.com/digits:1 | kubectl apply -f -
    """
    from compress.k8s import Wanted, render

    print(render(target, Wanted(image, name, namespace, replicas, max_replicas, token_secret)), end="")
