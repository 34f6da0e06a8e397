"""`limbeck k8s`: manifests that Kubernetes takes, judged by its own schemas, and what they promise."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helpers import tiny_package

from compress import cli
from compress.shipping.k8s import Wanted, render
from compress.shipping.pod import memory_mib
from serve.errors import UserError
from serve.limits import Limits
from serve.manifest import ServingConfig
from serve.package import write_serving

IMAGE = "registry.example.com:5000/team/trec:1.2"
SCHEMAS = ("1.29", "1.37")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_package(tmp_path_factory.mktemp("k8s") / "My Model").path
    write_serving(path, ServingConfig(threads=2, workers=3))
    return path


def _objects(package: Path, **wanted: Any) -> dict[str, Any]:
    """The rendered manifests by their kind, read back from the YAML."""
    documents = list(yaml.safe_load_all(render(package, Wanted(IMAGE, **wanted))))
    return {document["kind"]: document for document in documents}


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("options", [{}, {"namespace": "models", "replicas": 1, "token_secret": "keys"}])
def test_kubernetes_takes_every_object(package: Path, version: str, options: dict[str, Any]) -> None:
    objects = _objects(package, **options)
    assert {"Service", "Deployment", "HorizontalPodAutoscaler"} <= objects.keys()
    for made in objects.values():
        kubernetes_validate.validate(made, version, strict=True)
        assert made["metadata"].get("namespace") == options.get("namespace")


def test_the_schemas_find_what_is_wrong(package: Path) -> None:
    deployment = _objects(package)["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, SCHEMAS[-1], strict=True)


def test_the_objects_belong_together(package: Path) -> None:
    objects = _objects(package, name="trec")
    deployment = objects["Deployment"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert (
        objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "trec"
    )
    [container] = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] in named


def test_a_pod_writes_nowhere_but_to_its_own_folder_and_is_nobody(package: Path) -> None:
    pod = _objects(package)["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in writable}
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert any(env["BENTOML_HOME"].startswith(mount) for mount in mounts)
    assert "/tmp" in mounts


def test_a_pod_has_the_time_to_end(package: Path) -> None:
    pod = _objects(package)["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    drain_s = int(env["LIMBECK_DRAIN_SECONDS"])
    sleep_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep_s + drain_s + Limits().request_seconds
    probe = container["readinessProbe"]  # has failed before the listener closes
    assert probe["periodSeconds"] * probe["failureThreshold"] < drain_s
    assert probe["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_a_pod_asks_for_what_its_package_needs(package: Path) -> None:
    [container] = _objects(package)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "6"  # 3 workers of 2 threads
    asked = int(re.fullmatch(r"(\d+)Mi", container["resources"]["requests"]["memory"])[1])
    limit = int(re.fullmatch(r"(\d+)Mi", container["resources"]["limits"]["memory"])[1])
    assert asked == memory_mib(0, workers=3) < limit
    assert memory_mib(0, 1) < memory_mib(90_000_000, 1) < memory_mib(90_000_000, 2)


def test_tokens_come_from_a_secret(package: Path) -> None:
    pod = _objects(package, token_secret="keys")["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [volume] = [volume["name"] for volume in pod["volumes"] if volume.get("secret") == {"secretName": "keys"}]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["LIMBECK_TOKENS_FILE"] == f"{mount['mountPath']}/tokens"
    assert mount["readOnly"] is True


def test_one_pod_may_always_be_moved(package: Path) -> None:
    assert "PodDisruptionBudget" not in _objects(package, replicas=1)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"image": "registry.example.com/trec"}, "another image tomorrow", "name a version"),
        ({"image": "trec:latest"}, "another image tomorrow", "name a version"),
        ({"image": "Registry/Trec:1"}, "names no image", "for example"),
        ({"image": "a b:1"}, "names no image", "for example"),
        ({"name": "My_Model"}, "--name 'My_Model'", "did you mean 'my-model'?"),
        ({"name": "9lives"}, "--name '9lives'", "did you mean 'lives'?"),
        ({"name": "---"}, "--name '---'", "lower-case"),
        ({"namespace": "a.b"}, "--namespace 'a.b'", "did you mean 'a-b'?"),
        ({"token_secret": "K"}, "--token-secret 'K'", "did you mean 'k'?"),
        ({"replicas": 5, "max_replicas": 4}, "from more pods to fewer", "at least 1"),
        ({"replicas": 0}, "--replicas 0", "at least 1"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        Wanted(**{"image": IMAGE, **options})
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "image", ["trec:1", "localhost:5000/trec:v2", f"trec@sha256:{'0' * 64}", f"a/b__c:1@sha256:{'f' * 64}"]
)
def test_an_image_is_named_by_its_version_or_digest(image: str) -> None:
    assert Wanted(image).image == image


def test_the_command(package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["limbeck", "k8s", str(package), "--image", IMAGE, "--replicas", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    first, *_ = documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert len(documents) == 4
    assert first["metadata"]["name"] == "limbeck-my-model"
