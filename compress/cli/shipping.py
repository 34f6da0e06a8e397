"""`limbeck bento`, `limbeck k8s`: a package as others run it."""

from __future__ import annotations

from typing import Annotated

import typer

from compress.cli.shared import Debug, Target, examples

app = typer.Typer()


@app.command(epilog=examples("limbeck bento runs/digits", "limbeck bento runs/digits --name digits"))
def bento(
    target: Target = None,
    name: Annotated[str | None, typer.Option(help="The Bento's name. [default: limbeck-FOLDER]")] = None,
    debug: Debug = False,
) -> None:
    """Build a Bento: the server, one model package, no torch.

    With the versions of what they need, and nothing else of the run. `bentoml serve TAG` runs it, `bentoml containerize
    TAG` makes an image of it.
    """
    from compress.report.wording import size
    from compress.shipping.bento import build_bento

    built = build_bento(target, name)
    inside = f"the model package {size(built.package_bytes)}, {len(built.requirements)} requirements pinned"
    print(f"{built.tag}: {size(built.size_bytes)} ({inside})")
    print(built.path)
    print(f"serve it: bentoml serve {built.tag}")
    print(f"an image of it: bentoml containerize {built.tag}")


@app.command(
    epilog=examples(
        "limbeck k8s runs/digits --image registry.example.com/digits:1",
        "limbeck k8s runs/digits --image digits:1 | kubectl apply -f -",
    )
)
def k8s(
    image: Annotated[str, typer.Option(help="The image that serves it, with its version.", metavar="PATH:TAG")],
    target: Target = None,
    name: Annotated[str | None, typer.Option(help="The name of all objects. [default: limbeck-FOLDER]")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of all objects. [default: the one that kubectl is in]")] = None,
    replicas: Annotated[int, typer.Option(help="At least so many pods.")] = 2,
    max_replicas: Annotated[int, typer.Option(help="At most so many pods.")] = 10,
    token_secret: Annotated[
        str | None,
        typer.Option(
            help="A Secret whose key `tokens` holds bearer tokens, one on each line. [default: who reaches it may ask]"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write Kubernetes manifests for a package.

    To standard output: a Deployment, a Service, an autoscaler and a disruption budget.
    """
    from compress.shipping.k8s import Wanted, render

    print(render(target, Wanted(image, name, namespace, replicas, max_replicas, token_secret)), end="")
