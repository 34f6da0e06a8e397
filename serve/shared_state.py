"""A folder in which the workers of one server agree on what is served.

    state.json         what is served, and what is about to be: replaced whole, its version counts up
    copies/V-NAME/     the packages, so that every worker loads the same bytes, also one that comes back later
    workers/ID.lock    held by a living worker; ID.json beside it says how far it has followed
    lock               held by whoever changes the state

Only the server's own processes have access to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from serve.errors import PackageError, UserError
from serve.package import CARD, MANIFEST, SERVING, load_package, read_manifest

ENV = "LIMBECK_STATE_DIR"
_STATE, _LOCK, _COPIES, _WORKERS = "state.json", "lock", "copies", "workers"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Copy(_Frozen):
    """One package as it was taken in."""

    target: str  # the package or run that it came from
    folder: str  # its name under copies/
    id: str  # of the model


class Selection(_Frozen):
    """What a server serves: copies by name, one of them the default."""

    default: str
    models: dict[str, Copy]


class State(_Frozen):
    """`candidate` is what the workers shall load beside what they serve; they change over once it is `serving`."""

    version: int
    serving: Selection
    candidate: Selection | None = None


class Progress(_Frozen):
    """How far a worker has followed: it has done what `version` asks, or could not."""

    pid: int
    version: int
    problem: str | None = None


class SharedState:
    """The folder, as any of the server's processes sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> SharedState:
        """A new one in `folder`, which is made, or is empty."""
        for part in (_COPIES, _WORKERS):
            (folder / part).mkdir(parents=True, mode=0o700)
        return cls(folder)

    def read(self) -> State:
        return State.model_validate_json((self.folder / _STATE).read_bytes())

    def write(self, state: State) -> None:
        _replace(self.folder / _STATE, state)

    def stamp(self) -> tuple[int, int]:
        """Another one each time that the state has been written; cheap to ask for."""
        status = (self.folder / _STATE).stat()
        return status.st_ino, status.st_mtime_ns

    @contextlib.contextmanager
    def changing(self, patience_s: float) -> Iterator[None]:
        """Only one process at a time is within. Raises UserError if another does not leave in time."""
        with (self.folder / _LOCK).open("w") as file:
            deadline = time.monotonic() + patience_s
            while not _locked(file):
                if time.monotonic() > deadline:
                    raise UserError("another change of the models is under way", "try again when it has ended")
                time.sleep(0.02)
            yield  # closing the file unlocks it, and so does the death of the process

    def take_in(self, name: str, target: Path, package: Path, version: int) -> Copy:
        """Copy and verify a package that `target` stands for. Raises PackageError; then nothing of it is left."""
        folder = f"{version}-{name}"
        path = self.path(folder)
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.mkdir()
            for file in (MANIFEST, CARD, SERVING, *read_manifest(package).files):
                if (source := package / Path(file).name).is_file():
                    shutil.copyfile(source, path / source.name)
            return Copy(target=str(target), folder=folder, id=load_package(path).manifest.id)
        except PackageError as error:  # which names the copy
            shutil.rmtree(path, ignore_errors=True)
            raise PackageError(error.message.replace(str(path), str(package)), error.hint) from None
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def path(self, folder: str) -> Path:
        """Where the copy of that name is."""
        return self.folder / _COPIES / folder

    def sweep(self, keep: Selection) -> None:
        """Remove the copies that are not part of `keep`."""
        kept = {copy.folder for copy in keep.models.values()}
        for path in (self.folder / _COPIES).iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def register(self) -> Registration:
        """This worker is alive until it closes what is returned, or dies."""
        return Registration(self.folder / _WORKERS)

    def workers(self) -> list[Progress | None]:
        """How far each living worker has followed; None: it has only just started."""
        found = []
        for path in (self.folder / _WORKERS).glob("*.lock"):
            with path.open("r+") as file:
                if not _locked(file):
                    found.append(_progress(path))
                else:
                    path.with_suffix(".json").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
        return found


class Registration:
    """What shows the others that this worker lives, and how far it has followed."""

    def __init__(self, folder: Path) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / f"{name}.json"
        hidden = folder / f".{name}.lock"
        self._file = hidden.open("w")
        assert _locked(self._file)
        hidden.rename(folder / f"{name}.lock")  # seen by the others only once it is locked

    def report(self, version: int, problem: str | None = None) -> None:
        _replace(self._path, Progress(pid=os.getpid(), version=version, problem=problem))

    def close(self) -> None:
        self._file.close()


def _locked(file: IO[str]) -> bool:
    """Lock an open file, unless somebody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _progress(lock: Path) -> Progress | None:
    try:
        return Progress.model_validate_json(lock.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return None


def _replace(path: Path, content: BaseModel) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    partial.write_text(content.model_dump_json())
    partial.replace(path)
