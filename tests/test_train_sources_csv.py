from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from serve.errors import UserError
from train.sources import Reading, Source, load_source
from train.sources.csv_files import peek

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ROWS = [f"text {at},{'pos' if at % 2 else 'neg'}" for at in range(20)]


def written(folder: Path, rows: list[str], header: str = "text,label", encoding: str = "utf-8") -> str:
    path = folder / "data.csv"
    path.write_bytes("".join(f"{row}\n" for row in [header, *rows] if row).encode(encoding))
    return f"csv:{path}"


def read(source: str, **reading: object) -> Source:
    return load_source(source, Reading.model_validate(reading))


def problems(source: Source) -> dict[str, list[str]]:
    return {problem.kind.title: problem.examples for problem in source.problems}


def test_a_file_is_read_with_labels_sorted_and_lines_as_an_editor_counts(tmp_path: Path) -> None:
    source = read(written(tmp_path, ['"two\nlines",b', "", '"a ""quoted"" word",a', "last,b"]))
    assert (source.task, source.classes, source.test, source.problems) == ("text", ("a", "b"), None, ())
    assert source.items.content[:] == [b"two\nlines", b'a "quoted" word', b"last"]
    assert source.items.labels.tolist() == [1, 0, 1]
    assert source.items.origins[:] == ["data.csv:2", "data.csv:4", "data.csv:5"]


def test_blank_lines_and_windows_line_ends_count_as_lines(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"text,label\r\none,a\r\n\r\n\r\ntwo,b\r\n")
    source = read(f"csv:{tmp_path / 'data.csv'}")
    assert source.items.origins[:] == ["data.csv:2", "data.csv:5"]
    assert source.classes == ("a", "b")


def test_a_folder_gives_its_own_splits(tmp_path: Path) -> None:
    for name, text in {"train": "x", "val": "y", "test": "z"}.items():
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},a\n{text}{text},b\n")
    source = read(f"csv:{tmp_path}")
    assert source.validation is not None
    assert source.test is not None
    assert [part.content[0] for part in (source.items, source.validation, source.test)] == [b"x", b"y", b"z"]
    assert source.validation.origins[1] == "val.csv:3"
    (tmp_path / "dev.csv").write_text("text,label\n")
    with pytest.raises(UserError, match=r"two validation splits: dev.* and val"):
        read(f"csv:{tmp_path}")


def test_a_split_in_pieces_is_one_split(tmp_path: Path) -> None:
    for piece in (0, 1):
        (tmp_path / f"train-0000{piece}-of-00002.csv").write_text(f"text,label\npiece {piece},a\n")
    source = read(f"csv:{tmp_path}")
    assert source.items.content[:] == [b"piece 0", b"piece 1"]
    assert source.items.origins[1] == "train-00001-of-00002.csv:2"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_marked_encodings_are_found_out_and_others_named(tmp_path: Path, encoding: str) -> None:
    source = written(tmp_path, ["naïve café,ja", "日本語 😀,nein"], encoding=encoding)
    if encoding == "utf-16-le":
        with pytest.raises(UserError, match=r"data.csv is not UTF-8 text: it holds zero bytes") as refused:
            read(source)
        assert 'encoding = "utf-16-le"' in refused.value.hint
    items = read(source, encoding="utf-16-le" if encoding == "utf-16-le" else None).items
    assert [item.decode() for item in items.content] == ["naïve café", "日本語 😀"]


def test_cp1252_rows_are_named_and_the_encoding_mends_them(tmp_path: Path) -> None:
    source = written(tmp_path, [*ROWS, "café,pos", "plain,neg", "x,süß"], encoding="cp1252")
    found = problems(read(source))["rows in another encoding"]
    assert found == [r"data.csv:22: 'caf\xe9'", r"data.csv:24: 's\xfc\xdf'"]
    mended = read(source, encoding="cp1252")
    assert not mended.problems
    assert mended.items.content[20] == "café".encode()
    assert mended.classes == ("neg", "pos", "süß")


def test_mixed_encodings_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("text,label\ncafé,a\n".encode() + "café,b\n".encode("cp1252") + b"tea,b\n")
    source = read(f"csv:{path}")
    assert problems(source) == {"rows in another encoding": [r"data.csv:3: 'caf\xe9'"]}
    assert source.items.content[:] == ["café".encode(), b"tea"]


def test_utf16_that_breaks_off_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("text,label\none,a\ntwo,b\n".encode("utf-16")[:-1])
    with pytest.raises(UserError, match=r"data.csv:\d: not utf-16"):
        read(f"csv:{path}")


def test_an_unknown_encoding_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text encoding called 'cp125'") as refused:
        read(written(tmp_path, ROWS), encoding="cp125")
    assert "did you mean 'cp125" in refused.value.hint
    with pytest.raises(UserError, match="no text encoding called 'hex'"):
        read(written(tmp_path, ROWS), encoding="hex")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(tmp_path: Path, delimiter: str) -> None:
    rows = [f'"one, two; three|four",{at % 2}'.replace('",', f'"{delimiter}') for at in range(6)]
    source = written(tmp_path, rows, header=f"text{delimiter}label")
    assert read(source).items.content[0] == b"one, two; three|four"
    wrong = "|" if delimiter != "|" else ";"
    with pytest.raises(UserError, match="no column"):
        read(source, delimiter=wrong)


def test_the_delimiter_is_found_out_though_the_columns_are_called_otherwise(tmp_path: Path) -> None:
    source = written(tmp_path, [f"good, cheap, fast;{at % 2}" for at in range(6)], header="review, in full;stars")
    with pytest.raises(UserError, match=r"data.csv:1 has no column 'text' .* it has 'review, in full', 'stars'"):
        read(source)
    assert peek(tmp_path / "data.csv").delimiter == ";"


def test_rows_with_problems_are_named_by_file_and_line(tmp_path: Path) -> None:
    rows = ["fine,a", ",a", "  ,b", "no label,", "no label, ", "too,many,cells", "few", '"two\nlines",b', "x,"]
    source = read(written(tmp_path, [*rows, "spaced, a", '"open,a', "swallowed,b"]))
    assert problems(source) == {
        "empty texts": ["data.csv:3: the text is empty", "data.csv:4: the text is empty"],
        "missing labels": [f"data.csv:{line}: there is no label" for line in (5, 6, 11)],
        "rows with too few or too many cells": [
            "data.csv:7: 3 instead of 2 cells",
            "data.csv:8: 1 instead of 2 cells",
            "data.csv:13: 1 instead of 2 cells; the row goes on to line 14: is a quote never closed?",
        ],
        "labels with spaces around them": ["data.csv:12: ' a'"],
    }
    assert source.classes == (" a", "a", "b")
    assert source.items.content[:] == [b"fine", b"two\nlines", b"spaced"]


def test_problems_are_counted_though_few_are_kept(tmp_path: Path) -> None:
    (problem,) = read(written(tmp_path, ["x,a", "y,b", *[",a"] * 1000])).problems
    assert (problem.count, len(problem.examples)) == (1000, 5)


def test_what_a_cell_holds_never_reaches_a_terminal_as_a_command(tmp_path: Path) -> None:
    assert problems(read(written(tmp_path, ["x,\x1b[31m "])))["labels with spaces around them"] == [
        r"data.csv:2: '\x1b[31m '"
    ]


def test_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    labels = ["01", "1", "1.0", "NaN", "true", "None", "null", "-"]
    source = read(written(tmp_path, [f"text,{label}" for label in labels]))
    assert set(source.classes) == set(labels)
    assert [source.classes[label] for label in source.items.labels] == labels


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    assert read(written(tmp_path, [f"t,{label}" for label in ("10", "9", "2", "-1")])).classes == ("-1", "2", "9", "10")
    assert read(written(tmp_path, [f"t,{label}" for label in ("10", "9", "x")])).classes == ("10", "9", "x")


def test_given_classes_set_the_order_and_refuse_others(tmp_path: Path) -> None:
    source = read(written(tmp_path, [*ROWS, "x,negg"]), classes=("pos", "neg"))
    assert source.classes == ("pos", "neg")
    assert source.items.labels[:2].tolist() == [1, 0]
    (problem,) = source.problems
    assert problem.examples == ["data.csv:22: 'negg' is not in data.classes; did you mean 'neg'?"]
    with pytest.raises(UserError, match="names one class twice"):
        read(written(tmp_path, ROWS), classes=("pos", "pos"))


def test_a_wrong_column_gets_a_suggestion_and_the_list(tmp_path: Path) -> None:
    source = written(tmp_path, [f"{at},{row}" for at, row in enumerate(ROWS)], header="id,Text,label")
    with pytest.raises(UserError, match=r"data.csv:1 has no column 'text' \(text_column\); it has 'id', 'Text'") as no:
        read(source)
    assert 'text_column = "..."' in no.value.hint
    assert "did you mean 'Text'?" in no.value.hint
    assert len(read(source, text_column="Text").items) == 20
    with pytest.raises(UserError, match=r"no column 'lable' \(label_column\)") as no:
        read(source, text_column="Text", label_column="lable")
    assert "did you mean 'label'?" in no.value.hint
    with pytest.raises(UserError, match="two columns called 'text'"):
        read(written(tmp_path, ["a,b,c"], header="text,text,label"))


def test_a_file_without_a_header_is_recognised_and_read_by_position(tmp_path: Path) -> None:
    source = written(tmp_path, ROWS, header="")
    with pytest.raises(UserError, match=r"data.csv:1: there is no header: the first line is an item: 'text 0'") as no:
        read(source)
    assert "header = false" in no.value.hint
    with pytest.raises(UserError, match="without a header, and has columns '1', '2'") as no:
        read(source, header=False)
    assert 'text_column = "1"' in no.value.hint
    items = read(source, header=False, text_column="1", label_column="2").items
    assert (len(items), items.content[0], items.origins[0]) == (20, b"text 0", "data.csv:1")


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        (b"", "data.csv is empty", "a header line"),
        (b"\n \n", "data.csv is empty", "a header line"),
        (b"PK\x03\x04rest", "data.csv is a spreadsheet", "save it as CSV"),
        (b"PAR1rest", "data.csv is a Parquet file", "parquet:"),
        (b"\x1f\x8brest", "data.csv is compressed", "gunzip"),
        (b"\xff\xd8\xff\xe0", "data.csv is an image", "imagefolder:DIR"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, problem: str, hint: str) -> None:
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(UserError, match=problem) as refused:
        read(f"csv:{tmp_path / 'data.csv'}")
    assert hint in refused.value.hint


def test_paths_that_lead_nowhere_say_what_is_there(tmp_path: Path) -> None:
    written(tmp_path, ROWS)
    with pytest.raises(UserError, match=f"no file or folder at {re.escape(str(tmp_path))}/date.csv") as refused:
        read(f"csv:{tmp_path}/date.csv")
    assert "did you mean 'data.csv'?" in refused.value.hint
    with pytest.raises(UserError, match=r"has no train.csv; it holds data.csv") as refused:
        read(f"csv:{tmp_path}")
    assert f"csv:{tmp_path}/data.csv" in refused.value.hint
    with pytest.raises(UserError, match="names no path"):
        read("csv:")
    with pytest.raises(UserError, match="no file or folder") as refused:
        read("csv:nowhere/at/all.csv")
    assert "no folder nowhere/at" in refused.value.hint


def test_a_long_document_is_one_cell_and_an_endless_one_is_refused(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, [f"{'x' * 200_000},a"])).items.content[0]) == 200_000
    with pytest.raises(UserError, match=r"data.csv, somewhere after line 2: field larger") as refused:
        read(written(tmp_path, ["fine,a", f'"{"x" * 17 * 2**20}']))
    assert "quote" in refused.value.hint


def test_what_memory_does_not_hold_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.sources.spool.IN_MEMORY_BYTES", 100)
    rows = [f"text {at} {'x' * (at % 7)},{at % 3}" for at in range(300)]
    source = read(written(tmp_path, rows))
    texts = [row.partition(",")[0].encode() for row in rows]
    assert source.items.content[:] == texts
    assert [source.items.content[at] for at in (299, 0, 150, -1)] == [texts[at] for at in (299, 0, 150, -1)]
    assert list(source.items.take(source.items.labels.nonzero()[0]).content) == [
        text for at, text in enumerate(texts) if at % 3
    ]


def test_a_disk_that_takes_a_part_at_a_time_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.sources.spool.IN_MEMORY_BYTES", 100)
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: whole(file, bytes(data)[:7], place))
    rows = [f"text number {at},{at % 3}" for at in range(40)]
    assert read(written(tmp_path, rows)).items.content[:] == [row.partition(",")[0].encode() for row in rows]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "sst2").is_dir(), reason="no sst2 in ../shared/data")
def test_sst2_has_the_sizes_that_it_is_known_for() -> None:
    source = load_source(f"csv:{SHARED / 'sst2'}")
    assert source.validation is not None
    assert source.test is not None
    assert [len(part) for part in (source.items, source.validation, source.test)] == [6920, 872, 1821]
    assert (source.classes, source.problems) == (("negative", "positive"), ())
