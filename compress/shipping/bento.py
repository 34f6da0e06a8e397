"""A Bento: `serve/`, one model package and the versions of what they need, as BentoML serves and containerizes it.

Nothing else of the project, nothing of the run: no data, no teacher, no torch. What is needed to serve is pinned to the
versions that are installed here, dependencies of dependencies included: the package was measured with these.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import serve
from serve import playground
from serve.errors import UserError
from serve.locate import BUNDLED, find_package
from serve.package import CARD, MANIFEST, SERVING, Package, load_package

SERVICE = "serve.service:Classifier"
# What serve/ imports.
NEEDED = (
    "bentoml",
    "httptools",
    "numpy",
    "onnxruntime",
    "pillow",
    "prometheus-client",
    "pydantic",
    "python-multipart",
    "tokenizers",
    "uvicorn",
    "uvloop",
)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Built:
    """A Bento in BentoML's store."""

    tag: str  # NAME:VERSION
    path: Path
    size_bytes: int  # of all its files
    package_bytes: int  # of these, the model package
    requirements: tuple[str, ...]


def build_bento(target: Path | None, name: str | None = None) -> Built:
    """Build a Bento of the package that `target` stands for, as `find_package` understands it.

    Its version is the model's id and a hash of all that is in it: the same is not built twice. Raises UserError.
    """
    package = load_package(find_package(target))
    name = _checked(name) if name else bento_name(target or package.path)
    pins = pinned(NEEDED)
    with tempfile.TemporaryDirectory(prefix="limbeck-bento-") as folder:
        stage = Path(folder)
        _lay_out(stage, package, pins)
        tag = f"{name}:{package.manifest.id}-{_digest(stage)}"
        path = _stored(tag) or _build(stage, tag, package)
    return Built(tag, path, _size(path), _size(path / "src" / BUNDLED.name), pins)


def pinned(names: tuple[str, ...]) -> tuple[str, ...]:
    """`names` and all that they depend on here, each as NAME==VERSION. Raises UserError for what is not installed."""
    found: dict[str, str] = {}
    waiting = [(canonicalize_name(name), "") for name in names]  # with an extra, "" for none
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        installed, found[name] = _installed(name)
        for inner in map(Requirement, requires(installed) or ()):
            if inner.marker is not None and not inner.marker.evaluate({"extra": extra}):
                continue
            new = {(canonicalize_name(inner.name), wanted) for wanted in ("", *inner.extras)} - seen
            waiting.extend(new)
            seen |= new
    return tuple(f"{name}=={found[name]}" for name in sorted(found))


def _installed(name: str) -> tuple[str, str]:
    """The distribution that provides `name` here, and its version. A Bento gets the plain build of onnxruntime."""
    for candidate in (name, f"{name}-gpu"):
        try:
            return candidate, version(candidate)
        except PackageNotFoundError:
            continue
    raise UserError(f"{name} is not installed here, and a Bento needs its version", "install limbeck again: make setup")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        hint = "lower-case letters, digits and dashes, at most 63, neither first nor last a dash"
        raise UserError(f"--name {name!r} is no name for a Bento", hint)
    return name


def bento_name(target: Path) -> str:
    """A name after the folder of the run or the package; Kubernetes takes it too."""
    words = re.sub(r"[^a-z0-9]+", "-", target.resolve().name.lower()).strip("-")
    return f"limbeck-{words}"[:63].rstrip("-")


def _lay_out(stage: Path, package: Package, pins: tuple[str, ...]) -> None:
    """What the Bento is built from: the sources, the verified bytes of the package, the versions."""
    sources = Path(serve.__file__).parent
    for source in sorted([*sources.glob("*.py"), *playground.FOLDER.iterdir()]):
        place = stage / "serve" / source.relative_to(sources)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    inside = stage / BUNDLED.name
    inside.mkdir()
    for name, content in package.files.items():
        (inside / name).write_bytes(content)
    for name in (MANIFEST, CARD, SERVING):
        if (package.path / name).is_file():
            shutil.copyfile(package.path / name, inside / name)
    load_package(inside)
    (stage / "requirements.txt").write_text("\n".join(pins) + "\n")


def _build(stage: Path, tag: str, package: Package) -> Path:
    name, version_ = tag.split(":")
    content = {
        "service": SERVICE,
        "description": f"{package.name}, model {package.manifest.id}, packaged by limbeck",
        "labels": {"model": package.manifest.id},
        "include": ["serve/*.py", "serve/page/*", f"{BUNDLED.name}/*"],
        "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
    }
    (stage / "bentofile.yaml").write_text(json.dumps(content))  # JSON is YAML
    command = [sys.executable, "-m", "bentoml", "build", ".", "--name", name, "--version", version_, "-o", "tag"]
    done = subprocess.run(command, cwd=stage, env=_environ(), capture_output=True, text=True, check=False)
    stored = _stored(tag)
    if done.returncode or stored is None:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise UserError(f"`bentoml build` ended with status {done.returncode}", f"its last words:\n{tail}")
    return stored


def _environ() -> dict[str, str]:
    """This environment without what is meant for a server: `bentoml build` imports the service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIMBECK_")}
    return {**kept, "BENTOML_DO_NOT_TRACK": "true"}


def _stored(tag: str) -> Path | None:
    """The folder of a Bento in BentoML's store."""
    import bentoml

    try:
        return Path(bentoml.get(tag).path)
    except bentoml.exceptions.NotFound:
        return None


def _digest(stage: Path) -> str:
    """8 hex digits over the names and bytes of all files below `stage`."""
    state = hashlib.sha256()
    for file in sorted(path for path in stage.rglob("*") if path.is_file()):
        state.update(file.relative_to(stage).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return state.hexdigest()[:8]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
