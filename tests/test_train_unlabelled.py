"""[data.unlabelled]: read, checked against the judged splits, learned from by the teacher's answers alone."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serve.errors import UserError
from train.data import Data, DataConfig, examine, load_data
from train.sources import load_source
from train.sources.base import UNLABELLED, Contents
from train.sources.unlabelled import load_unlabelled
from train.unlabelled import UnlabelledConfig, without_known

TEXTS = [f"review number {at}" for at in range(60)]


def labelled(folder: Path) -> str:
    rows = [f"text {at},{'pos' if at % 2 else 'neg'}" for at in range(100)]
    (folder / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return f"csv:{folder / 'data.csv'}"


def pool(folder: Path, texts: list[str] = TEXTS) -> str:
    (folder / "pool.csv").write_text("\n".join(["text", *texts]) + "\n")
    return f"csv:{folder / 'pool.csv'}"


def config(folder: Path, source: str, repair: dict[str, str] | None = None, **unlabelled: Any) -> DataConfig:
    content = {"source": labelled(folder), "unlabelled": {"source": source, **unlabelled}, "repair": repair or {}}
    return DataConfig.model_validate(content)


def held_out(folder: Path, split: str) -> list[str]:
    return [item.decode() for item in load_data(DataConfig(source=labelled(folder)), 0).splits[split].content]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "folder"])
def test_tables_without_a_label_column_are_read(tmp_path: Path, kind: str) -> None:
    if kind == "csv":
        source = pool(tmp_path)
    elif kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        source = f"jsonl:{tmp_path / 'a.jsonl'}"
    elif kind == "parquet":
        pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
        source = f"parquet:{tmp_path / 'a.parquet'}"
    else:  # whatever the files are called
        (tmp_path / "more").mkdir()
        (tmp_path / "more/a.csv").write_text("\n".join(["text,stars", *(f"{text},3" for text in TEXTS[:20])]))
        (tmp_path / "more/b.csv").write_text("\n".join(["text", *TEXTS[20:]]))
        source = f"csv:{tmp_path / 'more'}"
    found = load_unlabelled(source, Contents(), "text")
    assert [item.decode() for item in found.items.content] == TEXTS
    assert found.items.labels.tolist() == [UNLABELLED] * 60
    assert (found.classes, found.problems) == ((), ())


def png(seed: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_may_lie_flat_and_in_any_folders(tmp_path: Path) -> None:
    (tmp_path / "a/test").mkdir(parents=True)
    for at, name in enumerate(("0.png", "a/1.png", "a/test/2.png")):
        (tmp_path / name).write_bytes(png(at))
    found = load_unlabelled(f"imagefolder:{tmp_path}", Contents(), "image")
    assert sorted(found.items.origins) == ["0.png", "a/1.png", "a/test/2.png"]
    assert sorted(found.items.content) == sorted(png(at) for at in range(3))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("csw:x.csv", "did you mean 'csv'"),
        ("digits", "no source of items without labels"),
        ("csv:none.csv", r"data\.unlabelled\.source = 'csv:none\.csv'"),
        ("imagefolder:{}", "no image"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load_unlabelled(source.format(tmp_path), Contents(), "text")
    assert re.search(message, f"{refused.value} {refused.value.hint}")


def test_items_of_another_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    with pytest.raises(UserError, match="holds images, but the labelled items are texts"):
        load_unlabelled(f"imagefolder:{tmp_path}", Contents(), "text")


def test_a_run_without_unlabelled_items_is_named_as_before_and_with_them_its_splits_stay(tmp_path: Path) -> None:
    plain = load_data(DataConfig(source=labelled(tmp_path)), 0)
    more = load_data(config(tmp_path, pool(tmp_path)), 0)
    assert plain.unlabelled is None
    assert more.fingerprint == plain.fingerprint
    assert more.unlabelled is not None
    assert len(more.unlabelled.items) == 60
    assert more.notes[-1].startswith("60 unlabelled items: csv:")
    joined = more.part("train+unlabelled")
    assert len(joined) == len(plain.splits["train"]) + 60
    assert joined.labels[-60:].tolist() == [UNLABELLED] * 60
    assert joined.content[len(joined) - 1] == TEXTS[-1].encode()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_stands_in_a_judged_split_is_refused_or_left_out(tmp_path: Path, split: str) -> None:
    leaking = held_out(tmp_path, split)[:3]
    source = pool(tmp_path, [*TEXTS[:30], *leaking, *TEXTS[30:]])
    with pytest.raises(UserError, match=rf"unlabelled pool\.csv:32 is also data\.csv:\d+ \({split}\) \(3 problems"):
        load_data(config(tmp_path, source), 0)
    dropped = load_data(config(tmp_path, source, {"duplicates": "drop"}), 0)
    assert dropped.unlabelled is not None
    assert [item.decode() for item in dropped.unlabelled.items.content] == TEXTS
    assert any("left out: unlabelled items that stand in validation or test" in note for note in dropped.notes)
    kept = load_data(config(tmp_path, source, {"duplicates": "keep"}), 0)
    assert kept.unlabelled is not None
    assert len(kept.unlabelled.items) == 63


def test_what_stands_in_train_is_kept_and_told(tmp_path: Path) -> None:
    known = held_out(tmp_path, "train")[:2]
    examined = examine(config(tmp_path, pool(tmp_path, [*TEXTS, *known])), 0)
    assert examined.accepted
    assert examined.data is not None
    assert examined.data.unlabelled is not None
    assert len(examined.data.unlabelled.items) == 62
    told = {problem.kind.title: (verdict, problem.count) for verdict, problem in examined.problems}
    assert told == {"unlabelled items that stand in train or calibration": ("note", 2)}


def test_empty_texts_and_broken_images_are_refused_or_left_out(tmp_path: Path) -> None:
    source = pool(tmp_path, [*TEXTS, '" "'])
    with pytest.raises(UserError, match=r"unlabelled pool\.csv:62: the text is empty"):
        load_data(config(tmp_path, source), 0)
    assert load_data(config(tmp_path, source, {"empty": "drop"}), 0).unlabelled is not None
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(1))
    (folder / "b.png").write_bytes(b"no image")
    images = {"source": "digits", "unlabelled": {"source": f"imagefolder:{folder}"}}
    with pytest.raises(UserError, match=r"unlabelled b\.png"):
        load_data(DataConfig.model_validate(images), 0)
    left = load_data(DataConfig.model_validate({**images, "repair": {"unreadable": "drop"}}), 0)
    assert left.unlabelled is not None
    assert list(left.unlabelled.items.origins) == ["a.png"]


def test_a_sample_depends_on_the_seed_and_is_never_larger_than_the_source(tmp_path: Path) -> None:
    def drawn(seed: int, size: float) -> Data:
        return load_data(config(tmp_path, pool(tmp_path), items=size), seed)

    one, same, other, half = drawn(0, 20), drawn(0, 20), drawn(1, 20), drawn(0, 0.5)
    assert one.unlabelled is not None
    assert same.unlabelled is not None
    assert other.unlabelled is not None
    assert half.unlabelled is not None
    assert len(set(one.unlabelled.items.content)) == 20
    assert one.unlabelled.fingerprint == same.unlabelled.fingerprint != other.unlabelled.fingerprint
    assert len(half.unlabelled.items) == 30
    with pytest.raises(UserError, match=r"asks for 61 items, but .* has 60"):
        drawn(0, 61)


def test_of_a_fold_what_is_held_out_can_be_taken_away(tmp_path: Path) -> None:
    items = load_unlabelled(pool(tmp_path), Contents(), "text").items
    left = without_known(items, items.take(np.array([3, 5])))
    assert [item.decode() for item in left.content] == [text for at, text in enumerate(TEXTS) if at not in (3, 5)]


def test_the_labelled_source_still_needs_its_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'label'"):
        load_source(pool(tmp_path))


def test_unlabelled_configuration_refuses_a_label_column() -> None:
    with pytest.raises(ValueError, match="label_column"):
        UnlabelledConfig.model_validate({"source": "csv:x", "label_column": "y"})
