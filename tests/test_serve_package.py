from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import LABELS, tiny_onnx, tiny_package, tiny_text_package, tiny_tokenizer

from serve.errors import PackageError
from serve.manifest import Manifest, ServingConfig
from serve.package import load_package, write_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_package(tmp_path / "package").path


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _reseal(folder: Path, **changes: Any) -> None:
    """Change the manifest and give it the id of what it now says, as a forger would."""
    manifest = Manifest.model_validate({**json.loads((folder / "manifest.json").read_text()), **changes})
    (folder / "manifest.json").write_text(manifest.sealed().model_dump_json())


def _refusal(folder: Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        load_package(folder)
    assert caught.value.hint
    return caught.value


def test_what_is_written_is_read_back(folder: Path) -> None:
    package = load_package(folder)
    assert package.files["model.onnx"] == tiny_onnx()
    assert package.manifest.labels == LABELS
    assert package.manifest.id == package.manifest.computed_id()
    assert package.name == "tiny"
    assert package.serving == ServingConfig()
    assert package.size_bytes == len(tiny_onnx())
    assert sorted(file.name for file in folder.iterdir()) == [
        "card.json",
        "manifest.json",
        "model.onnx",
        "serving.json",
    ]


def test_writing_replaces_the_whole_folder_and_leaves_nothing_beside_it(folder: Path) -> None:
    (folder / "stray.txt").write_text("old")
    tiny_package(folder, temperature=2.0)
    assert load_package(folder).manifest.temperature == 2.0
    assert not (folder / "stray.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["package"]


def test_the_id_names_the_behaviour_and_nothing_else(folder: Path) -> None:
    before = load_package(folder)
    _edit(folder / "card.json", name="other", metrics={"accuracy": 0.9})
    _edit(folder / "serving.json", threads=2)
    after = load_package(folder)
    assert after.manifest.id == before.manifest.id
    assert (after.name, after.serving.threads) == ("other", 2)
    changed = write_package(
        folder, before.manifest.model_copy(update={"temperature": 1.5}), {"model.onnx": b"x"}, {}, before.serving
    )
    assert changed.manifest.id != before.manifest.id


def test_a_flipped_byte_is_found(folder: Path) -> None:
    model = bytearray((folder / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (folder / "model.onnx").write_bytes(model)
    assert "model.onnx is corrupt" in _refusal(folder).message


@pytest.mark.parametrize(
    "change",
    [{"labels": ["dark", "green", "red", "blue"]}, {"temperature": 2.0}, {"batch_invariant": False}, {"id": "0" * 16}],
)
def test_an_edited_manifest_is_found(folder: Path, change: dict[str, Any]) -> None:
    _edit(folder / "manifest.json", **change)
    assert "its contents give" in _refusal(folder).message


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"labels": ["a", "a"]}, "two labels"),
        ({"labels": ["a"]}, "labels"),
        ({"surprise": 1}, "surprise"),
        ({"schema_version": 2}, "schema_version"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_by_name(folder: Path, change: dict[str, Any], where: str) -> None:
    _edit(folder / "manifest.json", **change)
    assert where in _refusal(folder).message


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "sub/model.bin", ".hidden", ".."])
def test_a_file_outside_the_folder_is_not_read(folder: Path, name: str) -> None:
    (folder.parent / "outside.bin").write_bytes(b"secret")
    _reseal(folder, files={**load_package(folder).manifest.files, name: "0" * 64})
    assert "outside its folder" in _refusal(folder).message


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    assert "model.onnx" in _refusal(folder).message


def test_the_tokenizer_is_among_the_hashed_files(tmp_path: Path) -> None:
    package = tiny_text_package(tmp_path / "package")
    assert sorted(package.manifest.files) == ["model.onnx", "tokenizer.json"]
    other = tiny_text_package(tmp_path / "other", tiny_tokenizer(special=False))
    assert other.manifest.id != package.manifest.id
    (package.path / "tokenizer.json").write_bytes(other.files["tokenizer.json"])
    assert "tokenizer.json is corrupt" in _refusal(package.path).message
    (package.path / "tokenizer.json").unlink()
    assert "tokenizer.json" in _refusal(package.path).message


def test_a_manifest_without_a_model_is_refused(folder: Path) -> None:
    _reseal(folder, files={})
    assert "lists no model.onnx" in _refusal(folder).message


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\udcff"])
def test_a_manifest_that_is_not_json_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content, errors="surrogateescape")
    assert "manifest" in _refusal(folder).message


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    assert "no model package" in _refusal(tmp_path / "nowhere").message
    assert "manifest.json" in _refusal(tmp_path).message


def test_a_bad_serving_json_is_refused_and_a_missing_one_means_defaults(folder: Path) -> None:
    _edit(folder / "serving.json", threads=0)
    assert "threads" in _refusal(folder).message
    (folder / "serving.json").unlink()
    assert load_package(folder).serving == ServingConfig()
