from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import hf_raise_for_status

from serve.errors import UserError
from train.hub import fetch

http = pytest.importorskip(errors.Response.__module__.partition(".")[0])  # the hub client's own HTTP library


def answer(status: int, **headers: str) -> Exception:
    """What the hub's client raises for an answer of its server."""
    request = http.Request("GET", "https://huggingface.co/api/models/org/tiny")
    named = {f"X-{name.replace('_', '-')}": value for name, value in headers.items()}
    with pytest.raises(errors.HfHubHTTPError) as raised:
        hf_raise_for_status(http.Response(status, headers=named, request=request))
    return raised.value


def raising(error: Exception) -> Callable[..., Any]:
    def call(*args: object, **kwargs: object) -> Any:
        raise error

    return call


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., UserError]:
    """The error of a fetch: what fails when the hub is asked, and when it is to send."""
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))

    def failing(
        asked: Exception | None, sent: Exception | None = None, kind: Literal["model", "dataset"] = "model"
    ) -> UserError:
        answers = raising(asked) if asked else lambda *args, **kwargs: None
        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", answers)
        if sent:
            monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(sent))
        with pytest.raises(UserError) as refused:
            fetch(kind, "org/tiny", ["*.json"])
        return refused.value

    return failing


@pytest.mark.parametrize(
    "error",
    [
        http.ConnectError("[Errno -2] Name or service not known"),
        http.ReadTimeout("timed out"),
        http.ProxyError("407 Proxy Authentication Required"),
        errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
    ],
)
def test_without_a_network_a_folder_is_asked_for(told: Callable[..., UserError], error: Exception) -> None:
    refused = told(error)
    assert f"the model 'hf:org/tiny' is no folder here, the Hugging Face hub cannot be reached ({error})" in str(
        refused
    )
    assert "hf download org/tiny --local-dir DIR" in refused.hint
    assert "hf download --repo-type dataset org/tiny --local-dir DIR" in told(error, kind="dataset").hint


def test_a_network_that_breaks_while_sending_is_one_too(told: Callable[..., UserError]) -> None:
    lost = errors.LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")
    lost.__cause__ = http.ConnectTimeout("timed out")
    assert "the Hugging Face hub cannot be reached" in str(told(None, lost))


def test_a_repository_that_is_not_there_is_a_matter_of_spelling(told: Callable[..., UserError]) -> None:
    refused = told(answer(404, Error_Code="RepoNotFound"))
    assert "'hf:org/tiny' is no folder here, and not on the Hugging Face hub, or private there" in str(refused)
    assert "spelling" in refused.hint
    assert "reached" not in str(refused)


def test_what_one_may_not_read_is_a_matter_of_rights(told: Callable[..., UserError]) -> None:
    gated = told(answer(403, Error_Code="GatedRepo"), kind="dataset")
    assert "the data set 'hf:org/tiny' is gated" in str(gated)
    assert "https://huggingface.co/datasets/org/tiny" in gated.hint
    wrong = told(answer(401, Error_Message="Invalid credentials in Authorization header"))
    assert "may not be read" in str(wrong)
    assert "HF_TOKEN" in wrong.hint


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/blob"),
        RuntimeError("Data processing error: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_no_missing_network(told: Callable[..., UserError], error: Exception) -> None:
    refused = told(None, error)
    assert "does not fit on the disk" in str(refused)
    assert "HF_HOME" in refused.hint


def test_anything_else_is_told_in_its_own_words(told: Callable[..., UserError]) -> None:
    assert "503 Service Unavailable" in str(told(answer(503)))
    assert "Access to this resource is disabled" in str(
        told(answer(403, Error_Message="Access to this resource is disabled."))
    )
    strange = told(None, PermissionError(errno.EACCES, "Permission denied", "/cache/blob"))
    assert "PermissionError: [Errno 13] Permission denied: '/cache/blob'" in str(strange)
    for refused in (strange, told(answer(503))):
        assert "reached" not in str(refused)
        assert "\n" not in str(refused)


def test_the_cache_serves_while_the_hub_is_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", raising(answer(503)))
    snapshot = tmp_path / "datasets--org--tiny/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--org--tiny/refs").mkdir()
    (tmp_path / "datasets--org--tiny/refs/main").write_text("abc")
    assert fetch("dataset", "org/tiny", ["*.csv"]) == snapshot
