"""One pod of `limbeck k8s`: a server that is nobody, writes nowhere but to its own folder, and has the time to end."""

from __future__ import annotations

import math
from typing import Any

from serve.limits import DRAIN_SECONDS, Limits
from serve.manifest import ServingConfig
from serve.package import Package
from serve.tokens import ENV_FILE

Object = dict[str, Any]

_PORT = 3000
_USER = 1034  # of the images that BentoML makes
_PRE_STOP_S = 5  # until every node has heard that the pod's address is gone
_DRAIN_S = 5
_SPARE_S = 10  # before Kubernetes kills what has not ended
_SECRETS = "/var/run/limbeck"


def scraped(secret: str | None) -> dict[str, str]:
    """For a Prometheus that goes by annotations; behind tokens it needs one, which no annotation can tell it."""
    if secret is not None:
        return {}
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(_PORT), "prometheus.io/path": "/metrics"}


def pod(labels: dict[str, str], package: Package, image: str, secret: str | None) -> Object:
    """The pod's specification; `labels` are its own. `secret` is a Secret with bearer tokens."""
    # All that is written: BentoML's home, metrics of the workers, the copies of packages that are served.
    size = 64 + 32 * math.ceil(3 * package.size_bytes / 2**20 / 32)
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{size}Mi"}}]
    if secret is not None:
        volumes.append({"name": "tokens", "secret": {"secretName": secret}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _PRE_STOP_S + _DRAIN_S + Limits().request_seconds + _SPARE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "containers": [_container(package, image, secret)],
        "volumes": volumes,
    }


def _container(package: Package, image: str, secret: str | None) -> Object:
    env = {"BENTOML_HOME": "/tmp/bentoml", DRAIN_SECONDS: str(_DRAIN_S), "LIMBECK_LOG": "json"}
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]
    if secret is not None:
        env[ENV_FILE] = f"{_SECRETS}/tokens"
        mounts.append({"name": "tokens", "mountPath": _SECRETS, "readOnly": True})
    return {
        "name": "server",
        "image": image,
        "ports": [{"name": "http", "containerPort": _PORT}],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "resources": _resources(package.size_bytes, package.serving),
        **_probes(),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_PRE_STOP_S)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _resources(package_bytes: int, serving: ServingConfig) -> Object:
    """Memory is bounded, as a leak must end somewhere; processor time is not: a throttled server only answers late."""
    memory = memory_mib(package_bytes, serving.workers)
    return {
        "requests": {"cpu": str(serving.workers * serving.threads), "memory": f"{memory}Mi"},
        "limits": {"memory": f"{2 * memory}Mi"},
    }


def _probes() -> Object:
    def ask(path: str, **times: int) -> Object:
        return {"httpGet": {"path": path, "port": "http"}, **times}

    return {
        "startupProbe": ask("/readyz", periodSeconds=1, timeoutSeconds=2, failureThreshold=60),
        "readinessProbe": ask("/readyz", periodSeconds=2, timeoutSeconds=2, failureThreshold=1),
        "livenessProbe": ask("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
    }


def memory_mib(package_bytes: int, workers: int) -> int:
    """What a server holds at rest, with a quarter to spare, in MiB rounded up to 32.

    Measured, in MB: the process above the workers 80 to 105; a worker 92 with a model of 31 KB, 135 with one of 18 MB,
    307 with one of 91 MB.
    """
    held_mb = 105 + workers * (95 + 2.5 * package_bytes / 1e6)
    return 32 * math.ceil(1.25 * held_mb * 1e6 / 2**20 / 32)
