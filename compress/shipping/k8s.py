"""Kubernetes manifests for one package: what it needs and how long it takes is known, so nobody has to guess it.

Deployment, Service, HorizontalPodAutoscaler and, where there are several pods, a PodDisruptionBudget. The image is that
of `limbeck bento` and `bentoml containerize`, or any other whose server listens on port 3000.

How a pod ends: its address is taken off the Service while preStop sleeps and all is answered as before; at SIGTERM
/readyz says draining to whoever still asks; then requests in flight finish.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from compress.shipping.bento import bento_name
from compress.shipping.pod import Object, pod, scraped
from serve.errors import UserError
from serve.locate import find_package
from serve.package import Package, load_package

_CPU_TARGET = 70  # percent of what is requested, at which pods are added

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1035, which names of Services keep to
_IMAGE = re.compile(
    r"(?P<path>[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+(?=/))?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Wanted:
    """What the package does not say. Checked when it is made: raises UserError."""

    image: str
    name: str | None = None  # None: after the run
    namespace: str | None = None
    replicas: int = 2
    max_replicas: int = 10
    token_secret: str | None = None  # a Secret whose key `tokens` holds bearer tokens, one on each line

    def __post_init__(self) -> None:
        for option, given in (("name", self.name), ("namespace", self.namespace), ("token-secret", self.token_secret)):
            if given is not None:
                _check_label(option, given)
        _check_image(self.image)
        if not 1 <= self.replicas <= self.max_replicas:
            raise UserError(
                f"--replicas {self.replicas} and --max-replicas {self.max_replicas}: from more pods to fewer",
                "the autoscaler moves between the two: at least 1, and no more than --max-replicas",
            )


def render(target: Path | None, wanted: Wanted) -> str:
    """The manifests as YAML, for the package that `target` stands for. Raises UserError."""
    import yaml

    package = load_package(find_package(target))
    name = wanted.name or bento_name(target or package.path)
    about = [
        f"# {package.name}, model {package.manifest.id}, for Kubernetes. Written by `limbeck k8s`.",
        "# The autoscaler decides how many pods there are, so the Deployment does not say it.",
    ]
    documents = [yaml.safe_dump(made, sort_keys=False, width=110) for made in objects(name, package, wanted)]
    return "\n".join(about) + "\n" + "---\n".join(documents)


def objects(name: str, package: Package, wanted: Wanted) -> list[Object]:
    """The manifests as JSON's types, in the order in which they are applied."""
    made = [_service(name), _deployment(name, package, wanted), _autoscaler(name, wanted)]
    if wanted.replicas > 1:
        made.append(_disruption_budget(name))
    for each in made:
        each["metadata"]["labels"] = {**_selector(name), "app.kubernetes.io/managed-by": "limbeck"}
        if wanted.namespace is not None:
            each["metadata"]["namespace"] = wanted.namespace
    return made


def _check_label(option: str, given: str) -> None:
    if _LABEL.fullmatch(given):
        return
    near = re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-0123456789")[:63].strip("-")
    rule = "lower-case letters, digits and dashes, at most 63, a letter first and no dash last"
    raise UserError(
        f"--{option} {given!r} is no name that Kubernetes takes", f"did you mean '{near}'? {rule}" if near else rule
    )


def _check_image(image: str) -> None:
    found = _IMAGE.fullmatch(image)
    if found is None:
        hint = "expected [REGISTRY/]PATH:TAG or PATH@sha256:DIGEST, for example registry.example.com/team/trec:1"
        raise UserError(f"--image {image!r} names no image", hint)
    if found["digest"] is None and found["tag"] in (None, "latest"):
        raise UserError(
            f"--image {image!r} may be another image tomorrow, and new pods would answer with another model",
            "name a version, for example :1, or @sha256: and its digest",
        )


def _selector(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "limbeck", "app.kubernetes.io/instance": name}


def _service(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(name),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _deployment(name: str, package: Package, wanted: Wanted) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": {"limbeck/model": package.manifest.id}},
        "spec": {
            "selector": {"matchLabels": _selector(name)},
            # A pod more before there is one less, so that a new version takes no capacity away.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": _selector(name),
                    "annotations": {"limbeck/model": package.manifest.id, **scraped(wanted.token_secret)},
                },
                "spec": pod(_selector(name), package, wanted.image, wanted.token_secret),
            },
        },
    }


def _autoscaler(name: str, wanted: Wanted) -> Object:
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_TARGET}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": wanted.replicas,
            "maxReplicas": wanted.max_replicas,
            "metrics": [{"type": "Resource", "resource": usage}],
        },
    }


def _disruption_budget(name: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector(name)}},
    }
