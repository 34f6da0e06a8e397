from __future__ import annotations

import asyncio
import gc
import time
import weakref
from pathlib import Path

import pytest
from helpers import colored, tiny_package

from serve.engine import Engine
from serve.errors import PackageError, UserError
from serve.limits import Limits
from serve.memory import release_memory
from serve.models import Models, check_models, open_engine, settle
from serve.registry import Registry
from serve.shared_state import ENV as STATE


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    tiny_package(tmp_path / "other", temperature=2.0)
    return {"LIMBECK_PACKAGE": str(tiny_package(tmp_path / "main").path), "LIMBECK_PACKAGES": f"two={tmp_path}/other"}


def test_what_cannot_change_is_served_from_where_it_lies(environ: dict[str, str], tmp_path: Path) -> None:
    check_models(environ)
    assert STATE not in environ
    assert environ["LIMBECK_PACKAGE"] == str(tmp_path / "main")
    assert environ["LIMBECK_PACKAGES"] == f"two={tmp_path / 'other'}"


def test_what_can_change_is_served_from_copies(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environ["LIMBECK_ADMIN_TOKEN"] = "a-token-for-the-tests-alone"
    check_models(environ)
    state = Path(environ[STATE])
    assert sorted(path.name for path in (state / "copies").iterdir()) == ["1-main", "1-two"]
    assert state.stat().st_mode & 0o777 == 0o700
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    heard: list[Engine] = []
    models = Models(Limits(), heard.append)
    try:
        assert sorted(models.registry.current[0]) == ["main", "two"]
        assert heard == [models.default]
        assert models.admin is not None
    finally:
        models.close()


def test_what_lies_in_a_watched_folder_is_served_from_the_start(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "watched"
    for name in ("spam", "two", "broken"):
        tiny_package(folder / name)
    (folder / "broken" / "model.onnx").write_bytes(b"damaged")
    environ |= {"LIMBECK_MODELS_DIR": str(folder), "LIMBECK_WATCH": "1"}
    check_models(environ)
    copies = (Path(environ[STATE]) / "copies").iterdir()
    assert sorted(path.name for path in copies) == ["1-main", "1-spam", "1-two"]
    assert "broken in the watched folder is not served" in capsys.readouterr().err


def test_one_bad_package_is_refused_before_anything_is_served(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(PackageError, match=r"model.onnx is corrupt"):
        check_models(environ)
    environ["LIMBECK_PACKAGES"] = "main=elsewhere"
    with pytest.raises(UserError, match="under the name 'main'"):
        check_models(environ)


def test_what_is_loaded_at_the_start_is_left_out_of_garbage_collection() -> None:
    gc.unfreeze()
    try:
        settle()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_a_model_that_was_replaced_under_load_is_freed(tmp_path: Path) -> None:
    """Loading must not freeze the garbage of requests under way, which would hold their model for good."""
    old = open_engine(tiny_package(tmp_path / "old").path, Limits())
    registry = Registry({"main": old}, "main")
    freed = weakref.ref(old)
    del old

    async def ask() -> None:
        with registry.borrow() as engine:
            await engine.respond({b"content-type": b"image/png"}, b"", colored(1, 2, 3))
            cycle: list[object] = [engine]
            cycle.append(cycle)  # as a request leaves some
            engine = await asyncio.to_thread(open_engine, tmp_path / "new", Limits())
        registry.swap({"main": engine}, "main")

    tiny_package(tmp_path / "new", temperature=2.0)
    asyncio.run(ask())
    deadline = time.monotonic() + 10
    while freed() is not None and time.monotonic() < deadline:
        release_memory()
        time.sleep(0.01)
    assert freed() is None
    registry.close()
