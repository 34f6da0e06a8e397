"""`hf:PATH` and `hf:ID`: a data set laid out as on the Hugging Face hub, from a local folder or from the hub itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from serve.errors import UserError
from serve.manifest import Task
from train.sources import csv_files, image_folder, jsonl_files, parquet_files
from train.sources.base import Reading, Source
from train.sources.guess import guess_kind
from train.sources.paths import existing, expand

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_SECONDS = 4.0  # for an answer; a download takes as long as it takes
_READERS: dict[str, Callable[[str, Reading, Task | None], Source]] = {
    "csv": csv_files.read_csv,
    "jsonl": jsonl_files.read_jsonl,
    "parquet": parquet_files.read_parquet,
    "imagefolder": image_folder.read_image_folder,
}
# What is fetched: data, never code
_FETCHED = [
    f"*{suffix}"
    for suffixes in (csv_files.SUFFIXES, jsonl_files.SUFFIXES, parquet_files.SUFFIXES, image_folder.SUFFIXES)
    for suffix in suffixes
]


def read_hub(where: str, reading: Reading, task: Task | None = None) -> Source:
    """A data set's folder, or the one that the hub has under this id; read as what its files are."""
    path = expand(where)
    if not path.exists() and _HUB_ID.fullmatch(where) and not where.startswith("."):
        path = download(where)
    else:
        existing(where, "hf")
    return _READERS[guess_kind(path)](str(path), reading, task)


def download(name: str) -> Path:
    """The local folder of a data set of the hub; what is in the cache is taken where the hub is out of reach.

    Raises UserError within seconds where there is neither.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        offline = not _reachable(name)
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=_FETCHED, local_files_only=offline))
    except GatedRepoError:
        problem = "needs its terms accepted"
        hint = f"accept them on https://huggingface.co/datasets/{name} and set HF_TOKEN"
    except RepositoryNotFoundError:
        problem, hint = "is not on the hub", "check the spelling; a private data set needs HF_TOKEN"
    except Exception:  # every HTTP library that the hub's client has used has errors of its own
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        problem = f"is no folder here, the Hugging Face hub cannot be reached, and {cache} does not hold it"
        hint = (
            f"where there is a network: hf download --repo-type dataset {name} --local-dir DIR; "
            'then write source = "hf:DIR", or set HF_HOME to a cache that holds it'
        )
    raise UserError(f"the data set 'hf:{name}' {problem}", hint)


def _reachable(name: str) -> bool:
    """Does the hub answer? Asked first: `snapshot_download` waits for minutes for a hub that never does."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_HUB_SECONDS)
    except (GatedRepoError, RepositoryNotFoundError):
        raise
    except Exception:
        return False
    return True
