from __future__ import annotations

from pathlib import Path

import pytest
from unreachable_hub import what_is_said

from serve.errors import UserError
from train.sources import guess_source, load_source


def test_a_local_folder_is_read_as_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\none,a\n")
    (tmp_path / "README.md").write_text("---\n")
    assert load_source(f"hf:{tmp_path}").items.content[:] == [b"one"]
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.jsonl").write_text('{"text": "two", "label": "a"}\n')
    assert load_source(f"hf:{tmp_path}").items.content[:] == [b"two"]
    (tmp_path / "LICENSE.txt").write_text("no table, though a .txt named alone is read as one\n")
    assert load_source(f"hf:{tmp_path}").items.content[:] == [b"two"]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UserError, match="holds no data that can be read"):
        load_source(f"hf:{tmp_path}")
    with pytest.raises(UserError, match=r"no file or folder at nowhere"):
        load_source("hf:./nowhere")


def test_a_path_is_guessed_by_its_names(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl", "c.parquet", "d.tsv"):
        (tmp_path / name).write_text("")
    guessed = [guess_source(tmp_path / name).partition(":")[0] for name in ("a.csv", "b.jsonl", "c.parquet", "d.tsv")]
    assert guessed == ["csv", "jsonl", "parquet", "csv"]
    (tmp_path / "images/cat").mkdir(parents=True)
    (tmp_path / "images/cat/1.jpg").write_text("")
    (tmp_path / "images/list.csv").write_text("")
    assert guess_source(tmp_path / "images") == f"imagefolder:{tmp_path / 'images'}"
    (tmp_path / "e.docx").write_text("")
    with pytest.raises(UserError, match=r"e.docx is no data set"):
        guess_source(tmp_path / "e.docx")


@pytest.fixture(scope="module")
def said_without_a_hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    imports, call = "from train.sources import load_source", "load_source('hf:someone/reviews')"
    return what_is_said(imports, call, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("network", ["refused", "silent"])
def test_an_id_out_of_reach_fails_within_seconds_and_says_what_to_do(
    said_without_a_hub: dict[str, list[str]], network: str
) -> None:
    kind, message, hint, seconds = said_without_a_hub[network]
    assert kind == "UserError"
    assert "'hf:someone/reviews' is no folder here, the Hugging Face hub cannot be reached" in message
    assert "hf download --repo-type dataset someone/reviews --local-dir DIR" in hint
    assert float(seconds) < 15
