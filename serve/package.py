"""The model package: a folder whose bytes are checked against its manifest before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serve.errors import PackageError, did_you_mean
from serve.manifest import Manifest, ServingConfig
from serve.validation import first_problem

MANIFEST, MODEL, CARD, SERVING = "manifest.json", "model.onnx", "card.json", "serving.json"
_MAX_JSON_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Package:
    """A verified model package. `files` holds the very bytes that were hashed, so no later change can slip in."""

    path: Path
    manifest: Manifest
    files: dict[str, bytes]
    card: dict[str, Any]
    serving: ServingConfig

    @property
    def name(self) -> str:
        return str(self.card.get("name") or self.path.name)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files that decide an answer."""
        return sum(len(content) for content in self.files.values())


def load_package(path: Path) -> Package:
    """Read and verify the package at `path`. Raises PackageError naming the first thing that is wrong."""
    path = Path(path)
    if not path.is_dir():
        raise PackageError(f"no model package at {path}", "expected a folder with manifest.json in it")
    manifest = read_manifest(path)
    contents = {name: _read_verified(path, name, digest) for name, digest in manifest.files.items()}
    if MODEL not in contents:
        raise PackageError(f"{path / MANIFEST} lists no {MODEL}", "write the package again")
    card = _read_json(path / CARD) if (path / CARD).exists() else {}
    return Package(path, manifest, contents, card, read_serving(path))


def write_package(
    path: Path, manifest: Manifest, files: dict[str, bytes], card: dict[str, Any], serving: ServingConfig
) -> Package:
    """Write a package atomically (a folder beside `path`, then a rename) and read it back, verified.

    `manifest.files` and `manifest.id` are computed here from `files`; what was in them is ignored.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    sealed = manifest.model_copy(update={"files": digests}).sealed()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    for name, content in files.items():
        (partial / name).write_bytes(content)
    (partial / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n")
    (partial / CARD).write_text(json.dumps(card, indent=2) + "\n")
    (partial / SERVING).write_text(serving.model_dump_json(indent=2) + "\n")
    partial.chmod(0o755)
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)
    return load_package(path)


def read_serving(path: Path) -> ServingConfig:
    """The package's `serving.json`, or the defaults where there is none."""
    file = path / SERVING
    if not file.exists():
        return ServingConfig()
    try:
        return ServingConfig.model_validate(_read_json(file))
    except ValidationError as error:
        problem = first_problem(error)
        unknown = problem.kind == "extra_forbidden"
        hint = did_you_mean(problem.where, ServingConfig.model_fields) if unknown else problem.hint
        raise PackageError(f"{file}: {problem}", hint or "mend the file, or delete it for the defaults") from None


def write_serving(path: Path, serving: ServingConfig) -> None:
    """Write the `serving.json` of the package at `path` anew, whole or not at all."""
    partial = path / f".{SERVING}.partial"
    partial.write_text(serving.model_dump_json(indent=2) + "\n")
    partial.replace(path / SERVING)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the package at `path`, its id checked; its files are not read. Raises PackageError."""
    file = path / MANIFEST
    try:
        manifest = Manifest.model_validate(_read_json(file))
    except ValidationError as error:
        raise PackageError(
            f"{file}: {first_problem(error)}", "this version did not write the package: make it again"
        ) from None
    if manifest.computed_id() != manifest.id:
        raise PackageError(
            f"{file} says id {manifest.id} but its contents give {manifest.computed_id()}",
            "the manifest was changed after it was written; write the package again",
        )
    return manifest


def _read_verified(path: Path, name: str, digest: str) -> bytes:
    if Path(name).name != name or name.startswith("."):
        raise PackageError(f"the manifest names a file outside its folder: {name!r}", "write the package again")
    file = path / name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PackageError(f"cannot read {file}: {error.strerror}", "copy the whole package folder again") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise PackageError(
            f"{file} is corrupt: sha256 {found[:12]}…, the manifest says {digest[:12]}…",
            "copy the package again, or delete it and run the recipe again",
        )
    return content


def _read_json(file: Path) -> Any:
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise PackageError(f"{file} is over {_MAX_JSON_BYTES} bytes", "this is not a file that limbeck wrote")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise PackageError(f"cannot read {file}: {error.strerror}", "is this a model package?") from None
    except ValueError as error:
        raise PackageError(f"{file} is not JSON: {error}", "copy the package again") from None
