"""Where the trials of a search are kept: a journal file, or a database; shared by every process that opens it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from serve.errors import UserError, said

JOURNAL = "journal.log"


def open_storage(given: str | None, folder: Path) -> BaseStorage:
    """The storage at `given`: a database URL such as sqlite:///tune.db, or the path of a journal file.

    None: journal.log in `folder`. Raises UserError where it cannot be opened.
    """
    try:
        if given is not None and "://" in given:
            return RDBStorage(given)
        return _journal(Path(given) if given is not None else folder / JOURNAL)
    except UserError:
        raise
    except Exception as error:  # drivers of databases raise what they like
        raise UserError(f"cannot open the storage {shown(given, folder)}: {said(error)}", _HINT) from None


def _journal(path: Path) -> JournalStorage:
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock)
    _drop_torn_line(path, lock)
    try:
        return JournalStorage(backend)  # which reads all of it
    except ValueError as error:
        damaged = _damaged_line(path)
        if damaged is None:
            raise
        raise UserError(
            f"cannot open the storage {path}: line {damaged} is no JSON ({said(error)})",
            f"the file was damaged or edited: bring back an earlier copy; or delete line {damaged}, and keep a copy of "
            "this file: nothing is lost where the line was added, a trial may be where a record stood there",
        ) from None


def _damaged_line(path: Path) -> int | None:
    """The number of the first line of a journal that cannot be read, counted from 1; None of any other file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and not line.startswith(_FIRST):
                return None
            try:
                json.loads(line)
            except ValueError:
                return number
    return None


def _drop_torn_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Cut off a last line that was never written to its end (a full disk, a power cut).

    optuna reads past it, and writes its next line on the same one: no trial of the journal could be read again.
    """
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            if content.startswith(_FIRST) and not content.endswith(b"\n"):  # no journal: not ours to change
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def open_study(
    storage: BaseStorage, name: str, mark: str, pruner: optuna.pruners.BasePruner, where: str
) -> optuna.Study:
    """The study called `name`, made where there is none; a higher value is better.

    `mark` names what its trials have in common. Raises UserError where the study was begun under another one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
            )
        except Exception as error:
            raise UserError(f"cannot read the storage {where}: {said(error)}", _HINT) from None
    known = study.user_attrs.get(_MARK)
    if known is None:
        study.set_user_attr(_MARK, mark)
    elif known != mark:
        raise UserError(
            f"the storage {where} holds trials of '{name}' that were made under another recipe, data or search",
            "give another folder with --out (or another --storage), or delete it to begin anew; only the number of "
            "trials, pruning, and tpe for random or back may change",
        )
    return study


def shown(given: str | None, folder: Path) -> str:
    """The storage in a message: a URL without its password."""
    if given is None:
        return str(folder / JOURNAL)
    parts = urlsplit(given) if "://" in given else None
    return given if parts is None or not parts.password else given.replace(f":{parts.password}@", ":***@")


_MARK = "limbeck:mark"
_FIRST = b'{"op_code"'  # how a journal begins
_HINT = "expected the path of a journal file in a folder that exists, or a URL such as sqlite:///tune.db"
