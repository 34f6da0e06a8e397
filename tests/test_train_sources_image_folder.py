from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve.errors import UserError
from train.data import DataConfig, Repair, examine, load_data
from train.sources import Source, load_source


def jpeg(seed: int, size: int = 12) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def image_folder(root: Path, splits: tuple[str, ...] = ("",), count: int = 12) -> Path:
    for number, split in enumerate(splits):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for at in range(count):
                (root / split / name / f"{at}.jpg").write_bytes(jpeg(1000 * number + 100 * label + at))
    return root


def found(source: Source) -> dict[str, list[str]]:
    return {problem.kind.title: problem.examples for problem in source.problems}


def test_splits_and_classes_are_folders_and_images_stay_on_disk(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "val", "test"))
    (root / "train/dog/deep").mkdir()
    (root / "train/dog/deep/x.PNG").write_bytes(b"later")
    source = load_source(f"imagefolder:{root}")
    assert (source.task, source.classes, source.problems) == ("image", ("cat", "dog"), ())
    assert source.validation is not None
    assert source.test is not None
    assert [len(part) for part in (source.items, source.validation, source.test)] == [25, 24, 24]
    at = source.items.origins[:].index("train/dog/deep/x.PNG")
    (root / "train/dog/deep/x.PNG").write_bytes(b"changed")
    assert source.items.content[at] == b"changed"  # so nothing was kept
    assert source.items.labels[at] == 1
    (root / "train/dog/deep/x.PNG").unlink()
    with pytest.raises(UserError, match=r"cannot read .*train/dog/deep/x.PNG"):
        source.items.content[at]


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    data = load_data(DataConfig(source=f"imagefolder:{image_folder(tmp_path)}"), 0, "image")
    assert {name: len(items) for name, items in data.splits.items()} == {
        "train": 15,
        "calibration": 2,
        "validation": 2,
        "test": 5,
    }
    assert data.splits["train"].origins[0].startswith("cat/")
    again = load_data(DataConfig(source=f"imagefolder:{tmp_path}"), 0, "image")
    assert again.fingerprint == data.fingerprint


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "test"))
    for name in (".DS_Store", "train/.DS_Store", "train/cat/Thumbs.db", "train/cat/._0.jpg", "train/cat/notes.txt"):
        (root / name).write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "unlabelled").mkdir()
    (root / "train/bird").mkdir()
    (root / "train/loose.jpg").write_bytes(jpeg(1))
    (root / "test/dog/scan.tiff").write_bytes(b"II*\0")
    source = load_source(f"imagefolder:{root}")
    problems = found(source)
    assert sorted(problems["files of the operating system"]) == [
        ".DS_Store",
        "__MACOSX",
        "train/.DS_Store",
        "train/cat/._0.jpg",
        "train/cat/Thumbs.db",
    ]
    assert problems["folders that were not read"] == ["unlabelled"]
    assert problems["files that are no images"] == ["train/cat/notes.txt"]
    assert problems["images outside a class folder"] == ["train/loose.jpg"]
    assert problems["images that cannot be read"][0].startswith("test/dog/scan.tiff: not in a format that is read")
    assert problems["classes without a single item"] == ["train/bird: no image in it"]
    assert (source.classes, len(source.items)) == (("cat", "dog"), 24)


def test_a_link_to_a_folder_is_not_followed_but_named(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "13.jpg").write_bytes(jpeg(13))
    root = image_folder(tmp_path / "photos", ("train", "test"))
    (root / "train/dog/more").symlink_to(more)
    (root / "train/dog/loop").symlink_to(root / "train/dog")
    (root / "train/bird").symlink_to(more)  # a class may be a link
    source = load_source(f"imagefolder:{root}")
    assert found(source) == {"links to folders inside a class": ["train/dog/loop", "train/dog/more"]}
    assert (source.classes, len(source.items)) == (("bird", "cat", "dog"), 25)


def test_stray_files_alone_do_not_stop_a_run(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    clean = load_data(DataConfig(source=f"imagefolder:{root}"), 0)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "cat/.DS_Store").write_bytes(b"x")
    assert load_data(DataConfig(source=f"imagefolder:{root}"), 0).fingerprint == clean.fingerprint


def test_a_test_folder_never_becomes_a_class(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "Test").mkdir()
    with pytest.raises(UserError, match="has a folder Test, but none called train"):
        load_source(f"imagefolder:{root}")


def test_folders_without_classes_or_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no class folders") as refused:
        load_source(f"imagefolder:{tmp_path}")
    assert "DIR/cat/1.jpg" in refused.value.hint
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match=r"no image in the class folders of .*: cat"):
        load_source(f"imagefolder:{tmp_path}")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file, not a folder of images"):
        load_source(f"imagefolder:{tmp_path / 'file'}")


BROKEN = {"cut.jpg": "the image breaks off", "empty.jpg": "the image is empty", "text.png": "are not an image"}


def broken(root: Path) -> Path:
    image_folder(root, count=30)
    for name, content in {"cut.jpg": jpeg(7, 64)[:-900], "empty.jpg": b"", "text.png": b"hello"}.items():
        (root / "cat" / name).write_bytes(content)
    return root


def test_images_that_do_not_decode_are_named_and_dropped_when_the_recipe_says_so(tmp_path: Path) -> None:
    config = DataConfig(source=f"imagefolder:{broken(tmp_path)}")
    examined = examine(config, 0, decode=True)
    (problem,) = (problem for verdict, problem in examined.problems if verdict == "error")
    assert not examined.accepted
    assert problem.count == 3
    for example, (name, reason) in zip(problem.examples, BROKEN.items(), strict=True):
        assert example.startswith(f"cat/{name}: ")
        assert reason in example
    data = load_data(config.model_copy(update={"repair": Repair(unreadable="drop")}), 0)
    origins = [origin for items in data.splits.values() for origin in items.origins]
    assert len(origins) == 60
    assert not any(name in origin for name in BROKEN for origin in origins)
    assert data.notes == (
        "left out: images that cannot be read: cat/cut.jpg: the image breaks off or is damaged and 2 more",
    )


def test_a_broken_image_of_the_test_split_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    image_folder(tmp_path, ("train", "test"))
    config = DataConfig(source=f"imagefolder:{tmp_path}")
    (tmp_path / "train/cat/cut.jpg").write_bytes(jpeg(7, 64)[:-900])
    assert len(load_data(config, 0).splits["test"]) == 24  # train's images are decoded when they are prepared
    (tmp_path / "test/cat/cut.jpg").write_bytes(jpeg(8, 64)[:-900])
    with pytest.raises(UserError, match=r"test/cat/cut\.jpg: the image breaks off") as refused:
        load_data(config, 0)
    assert "unreadable" in refused.value.hint
