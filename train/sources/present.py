"""Whether the files of a source are there, before anything is read. Data sets of the hub are not asked for."""

from __future__ import annotations

from serve.errors import UserError
from train.sources import csv_files, jsonl_files, load_source, parquet_files
from train.sources.base import Contents, Reading
from train.sources.embedded import check_mnist
from train.sources.guess import guess_kind
from train.sources.hub import is_hub_id
from train.sources.image_folder import image_root, split_folders
from train.sources.paths import existing, files_of
from train.sources.problems import Problems
from train.sources.unlabelled import check_kind, told_of_unlabelled

_SUFFIXES = {"csv": csv_files.SUFFIXES, "jsonl": jsonl_files.SUFFIXES, "parquet": parquet_files.SUFFIXES}


def check_present(source: str, reading: Contents) -> None:
    """Raise UserError unless there are such files as data.source, or data.unlabelled.source, names."""
    if isinstance(reading, Reading):
        _check(source, reading)
        return
    check_kind(source)
    try:
        _check(source, reading)
    except UserError as error:
        raise told_of_unlabelled(error) from None


def _check(source: str, reading: Contents) -> None:
    kind, _, where = source.partition(":")
    if kind in _SUFFIXES:
        files_of(existing(where, kind), kind, _SUFFIXES[kind], reading)
    elif kind == "imagefolder":
        root = image_root(where)
        if isinstance(reading, Reading):
            split_folders(root, Problems())
    elif kind == "mnist":
        check_mnist(where)
    elif kind == "hf":
        if not is_hub_id(where):
            path = existing(where, kind)
            _check(f"{guess_kind(path)}:{path}", reading)
    elif source != "digits":
        load_source(source)  # refuses it
