from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve.errors import UserError
from train.sources import Reading, load_source


def written(folder: Path, lines: list[str]) -> str:
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"jsonl:{folder / 'data.jsonl'}"


def test_objects_are_read_with_their_lines_and_labels_as_written(tmp_path: Path) -> None:
    labels = ["1", "1.0", "NaN", "true", '"01"', '"true"', "1e3"]
    rows = [f'{{"text": "naïve {at}", "label": {label}}}' for at, label in enumerate(labels)]
    source = load_source(written(tmp_path, [rows[0], "", *rows[1:]]))
    assert source.items.content[0] == "naïve 0".encode()
    assert source.items.origins[:2] == ["data.jsonl:1", "data.jsonl:3"]
    assert [source.classes[label] for label in source.items.labels] == ["1", "1.0", "NaN", "true", "01", "true", "1e3"]


def test_lines_with_problems_are_named(tmp_path: Path) -> None:
    lines = [
        '{"text": "fine", "label": "a"}',
        '{"text": "cut off',
        '["text", "label"]',
        '{"text": "", "label": "a"}',
        '{"label": "a"}',
        '{"text": "x", "label": null}',
        '{"text": "x"}',
        '{"text": "x", "label": ["a", "b"]}',
        '{"text": "\\ud83d", "label": "a"}',
        '{"text": "x", "label": "\\ud83d"}',
    ]
    source = load_source(written(tmp_path, lines))
    found = {problem.kind.title: problem.examples for problem in source.problems}
    assert found["empty texts"] == ["data.jsonl:4: the text is empty", "data.jsonl:5: the text is empty"]
    assert found["missing labels"] == ["data.jsonl:6: there is no label", "data.jsonl:7: there is no label"]
    cut, array, several, half, label = found["rows that cannot be read"]
    assert cut.startswith("data.jsonl:2: not JSON: Unterminated string starting at, column 10")
    assert array.startswith("data.jsonl:3: expected an object")
    assert several == """data.jsonl:8: 'label' is not one value but ["a", "b"]"""
    assert half.startswith("data.jsonl:9: half a surrogate pair")
    assert label.startswith("data.jsonl:10: half a surrogate pair")
    assert source.items.content[:] == [b"fine"]


def test_a_wrong_column_an_array_and_nothing_at_all(tmp_path: Path) -> None:
    source = written(tmp_path, ['{"sentence": "x", "label": "a"}'])
    with pytest.raises(UserError, match=r"data.jsonl has no column 'text' .* it has 'label', 'sentence'"):
        load_source(source)
    assert len(load_source(source, Reading(text_column="sentence")).items) == 1
    with pytest.raises(UserError, match=r"data.jsonl:1: no JSON object") as refused:
        load_source(written(tmp_path, json.dumps([{"text": "x", "label": "a"}], indent=1).splitlines()))
    assert "jq" in refused.value.hint
    (tmp_path / "data.jsonl").write_text("")
    with pytest.raises(UserError, match=r"data.jsonl is empty"):
        load_source(source)


def test_rows_in_another_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "tea", "label": "a"}\n' + '{"text": "café", "label": "a"}\n'.encode("cp1252"))
    (problem,) = load_source(f"jsonl:{path}").problems
    assert problem.examples[0].startswith("data.jsonl:2: ")
    assert r"caf\xe9" in problem.examples[0]
    assert load_source(f"jsonl:{path}", Reading(encoding="cp1252")).items.content[1] == "café".encode()
