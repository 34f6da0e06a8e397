from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve.errors import UserError
from train.data import DataConfig, load_data
from train.sources import Reading, Source, load_source

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def written(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> str:
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return f"parquet:{path}"


def found(source: Source) -> dict[str, list[str]]:
    return {problem.kind.title: problem.examples for problem in source.problems}


def test_texts_with_class_names_from_the_metadata(tmp_path: Path) -> None:
    columns = {"text": ["x", "", None, "y", "z"], "label": [1, 0, 0, -1, 0]}
    source = load_source(written(tmp_path / "data.parquet", columns, ["zebra", "ape", "unused"]))
    assert (source.task, source.classes) == ("text", ("zebra", "ape"))
    assert source.items.content[:] == [b"x", b"z"]
    assert [source.classes[label] for label in source.items.labels] == ["ape", "zebra"]
    assert source.items.origins[:] == ["data.parquet:1", "data.parquet:5"]
    assert found(source) == {
        "empty texts": ["data.parquet:2: the text is empty", "data.parquet:3: the text is empty"],
        "missing labels": ["data.parquet:4: there is no label"],
        "classes without a single item": ["class 'unused'"],
    }


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9, None], ("9", "10")),
        ([1.0, 0.5, math.nan], ("0.5", "1.0")),
        (["01", "x", None], ("01", "x")),
        ([True, False, None], ("false", "true")),
    ],
)
def test_labels_without_names_stay_as_they_are(tmp_path: Path, labels: list[Any], classes: tuple[str, ...]) -> None:
    source = load_source(written(tmp_path / "data.parquet", {"text": ["a", "b", "c"], "label": labels}))
    assert source.classes == classes
    assert found(source) == {"missing labels": ["data.parquet:3: there is no label"]}


@pytest.mark.parametrize("struct", [True, False])
def test_images_are_bytes_or_a_struct_of_bytes_and_path(tmp_path: Path, struct: bool) -> None:
    images: list[Any] = [b"one", b"two", None, b""]
    if struct:
        images = [{"bytes": image, "path": None} for image in images] + [{"bytes": None, "path": "elsewhere.jpg"}]
    columns = {"image": images, "label": [0] * len(images)}
    source = load_source(written(tmp_path / "data.parquet", columns))
    assert (source.task, source.items.content[:]) == ("image", [b"one", b"two"])
    problems = found(source)
    assert problems["images that cannot be read"] == [f"data.parquet:{row}: there are no bytes" for row in (3, 4)]
    if struct:
        assert problems["rows that cannot be read"] == ["data.parquet:5: only a path, elsewhere.jpg, and no image"]


def test_the_hubs_layout_with_pieces_in_data(tmp_path: Path) -> None:
    for name, text in {"train-00000-of-00002": "a", "train-00001-of-00002": "b", "test-00000-of-00001": "c"}.items():
        written(tmp_path / "data" / f"{name}.parquet", {"text": [text], "label": ["x"]})
    for source in (load_source(f"parquet:{tmp_path}"), load_source(f"hf:{tmp_path}")):
        assert source.items.content[:] == [b"a", b"b"]
        assert source.items.origins[1] == "data/train-00001-of-00002.parquet:1"
        assert source.test is not None
        assert source.test.content[:] == [b"c"]


def test_a_file_with_images_and_texts_is_what_the_task_says(tmp_path: Path) -> None:
    source = written(tmp_path / "d.parquet", {"image": [b"i"], "text": ["t"], "label": [1]})
    assert load_source(source, task="text").items.content[0] == b"t"
    assert load_source(source, task="image").items.content[0] == b"i"


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d.parquet has no images in a column 'image' .* it has 'pixels', 'label'"):
        load_source(written(tmp_path / "d.parquet", {"pixels": [b"i"], "label": [1]}))
    with pytest.raises(UserError, match=r"d.parquet has no column 'label' \(label_column\); it has 'text', 'labels'"):
        load_source(written(tmp_path / "d.parquet", {"text": ["i"], "labels": [1]}))
    with pytest.raises(UserError, match=r"d.parquet: column 'text' holds int64, not texts"):
        load_source(written(tmp_path / "d.parquet", {"text": [1], "label": [1]}))
    with pytest.raises(UserError, match=r"d.parquet: column 'label' holds list.*, which is no class"):
        load_source(written(tmp_path / "d.parquet", {"text": ["a"], "label": [["x", "y"]]}))
    (tmp_path / "d.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"d.parquet is not a whole Parquet file"):
        load_source(f"parquet:{tmp_path / 'd.parquet'}")


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    source = written(tmp_path / "d.parquet", {"img": [b"i"], "fine": ["a"]})
    assert load_source(source, Reading(image_column="img", label_column="fine")).classes == ("a",)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no cifar10 in ../shared/data")
def test_cifar10_is_read_in_seconds_without_decoding() -> None:
    started = time.process_time()
    data = load_data(DataConfig(source=f"parquet:{SHARED / 'cifar10'}"), 0, "image")
    assert time.process_time() - started < 20  # 2 s on an idle machine
    assert {name: len(items) for name, items in data.splits.items()} == {
        "train": 44_744,
        "calibration": 256,
        "validation": 5_000,
        "test": 10_000,
    }
    assert data.classes[0] == "airplane"
    assert data.classes[-1] == "truck"
    assert data.splits["test"].content[0].startswith(b"\xff\xd8\xff")
