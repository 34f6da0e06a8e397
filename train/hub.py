"""Models and data sets of the Hugging Face hub: into its local cache, or a UserError that says why not.

There are four reasons that a user mends in four ways: no network, no such repository, no right to read it, no space on
the disk. Anything else is told in the words of the hub's client.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.errors import UserError

_SECONDS = 4.0  # for a first answer; a download takes as long as it takes


@dataclass(frozen=True)
class _Words:
    """What a repository is called: by people, in its address, to `hf download`."""

    called: str
    address: str
    option: str


_WORDS = {
    "model": _Words("model", "https://huggingface.co/{}", ""),
    "dataset": _Words("data set", "https://huggingface.co/datasets/{}", "--repo-type dataset "),
}


def fetch(kind: Literal["model", "dataset"], name: str, patterns: Sequence[str]) -> Path:
    """The local folder of a repository of the hub, with the files that match `patterns`.

    What is in the cache is taken where the hub does not give it. Raises UserError where there is neither, within
    seconds: the hub is asked first, since `snapshot_download` waits for minutes for one that never answers.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    refused: Exception | None = None
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_SECONDS)
    except Exception as error:
        refused = error
    try:
        return Path(
            snapshot_download(name, repo_type=kind, allow_patterns=list(patterns), local_files_only=refused is not None)
        )
    except Exception as error:
        cause = refused if refused is not None and isinstance(error, LocalEntryNotFoundError) else error
        raise _told(cause, _WORDS[kind], name) from cause


def _told(error: Exception, words: _Words, name: str) -> UserError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too
        problem = "is gated, and you have no access to it"
        hint = f"ask for it on {words.address.format(name)}, then set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        problem = "is no folder here, and not on the Hugging Face hub, or private there"
        hint = f"check the spelling; a private {words.called} needs HF_TOKEN"
    elif _status(error) in (401, 403):
        problem = f"may not be read: {_said(error)}"
        hint = "set HF_TOKEN to a token that may read it, or unset it for what is public"
    elif any(_is_full_disk(cause) for cause in _causes(error)):
        problem = f"does not fit on the disk: no space left in {cache}"
        hint = "make space, or set HF_HOME to a folder on another disk"
    elif any(_is_network(cause) for cause in _causes(error)):
        problem = f"is no folder here, the Hugging Face hub cannot be reached ({_said(error)}), and {cache} lacks it"
        hint = (
            f"where there is a network: hf download {words.option}{name} --local-dir DIR; "
            "then write 'hf:DIR', or set HF_HOME to a cache that holds it"
        )
    else:
        problem = f"was not fetched from the hub: {type(error).__name__}: {_said(error)}"
        hint = "if the hub is at fault, try again later; a folder that holds it works too: 'hf:DIR'"
    return UserError(f"the {words.called} 'hf:{name}' {problem}", hint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it: the hub's client often raises one of its own from the one that tells more."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_full_disk(error: BaseException) -> bool:
    """By text too: large files are written by a library in Rust, whose errors have no number."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def _is_network(error: BaseException) -> bool:
    """No connection, no answer in time, a proxy, HF_HUB_OFFLINE. By name: huggingface_hub changed httpx for httpx2."""
    named = any(base.__name__ == "TransportError" for base in type(error).__mro__)
    return named or isinstance(error, ConnectionError | TimeoutError)


def _status(error: Exception) -> int | None:
    from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError

    if isinstance(error, HfHubHTTPError) and not isinstance(error, DisabledRepoError):
        return error.response.status_code
    return None


def _said(error: Exception) -> str:
    """Its own words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
