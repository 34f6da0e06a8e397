from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from serve.errors import UserError
from serve.images import prepare_images
from train import sources
from train.data import SPLITS, Data, DataConfig, Repair, load_data
from train.images import of_one_size
from train.sources import Items, Source, expand, load_source

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
CONFIG = DataConfig(source="digits", calibration=100, validation=0.12, test=0.3)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(CONFIG, seed=0)


def test_digits_travel_as_png_without_loss() -> None:
    source = load_source("digits")
    images = np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in source.items.content])
    assert (images == np.rint(load_digits().images * 255 / 16)).all()
    assert (source.items.labels == load_digits().target).all()
    assert source.items.content[0].startswith(b"\x89PNG")


def test_splits_are_disjoint_and_hold_every_item(digits: Data) -> None:
    sizes = {name: len(digits.splits[name]) for name in SPLITS}
    assert sizes == {"train": 942, "calibration": 100, "validation": 216, "test": 539}
    # A few digits are drawn alike, so items are counted, not only compared.
    together = [content for name in SPLITS for content in digits.splits[name].content]
    assert sorted(together) == sorted(load_source("digits").items.content)


def test_splits_are_stratified(digits: Data) -> None:
    whole = np.bincount(load_source("digits").items.labels) / 1797
    for items in digits.splits.values():
        share = np.bincount(items.labels, minlength=10) / len(items)
        assert share == pytest.approx(whole, abs=1.5 / len(items))


def test_the_same_seed_gives_the_same_splits_and_another_seed_others(digits: Data) -> None:
    assert load_data(CONFIG, seed=0).fingerprints == digits.fingerprints
    other = load_data(CONFIG, seed=1)
    assert all(other.fingerprints[name] != digits.fingerprints[name] for name in SPLITS)
    assert other.fingerprint != digits.fingerprint


def test_images_are_prepared_at_their_own_size_and_colour(digits: Data) -> None:
    preprocessing = of_one_size(digits.splits["train"])
    assert preprocessing.shape == (8, 8, 1)
    prepared = prepare_images(digits.splits["test"].content[:1], preprocessing)
    stored = np.asarray(Image.open(io.BytesIO(digits.splits["test"].content[0])))
    assert (prepared[0, :, :, 0] == stored).all()


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def made_up(monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...], items: Items, test: Items | None) -> DataConfig:
    monkeypatch.setitem(sources._SOURCES, "madeup", lambda *_: Source("image", classes, items, test))
    repair = Repair(duplicates="keep")  # both splits hold the same images
    return DataConfig(source="madeup", calibration=4, validation=4, test=None, repair=repair)


def some(first: bytes = png(0), label: int = 0) -> Items:
    return Items([first, *(png(level) for level in range(1, 40))], np.array([label, *(at % 2 for at in range(1, 40))]))


def test_fingerprints_name_content_labels_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(classes: tuple[str, ...] = ("a", "b"), test: Items | None = None) -> tuple[str, str]:
        data = load_data(made_up(monkeypatch, classes, some(), test or some()), seed=0)
        return data.fingerprint, data.fingerprints["test"]

    base = fingerprint()
    assert fingerprint() == base
    # of equal length: the bytes themselves must count
    one, other = (fingerprint(test=some(first=png(level))) for level in (200, 201))
    assert len(png(200)) == len(png(201))
    assert one[1] != other[1]
    assert fingerprint(test=some(first=png(200)))[1] != base[1]
    assert fingerprint(test=some(label=1))[1] != base[1]
    assert fingerprint(test=some(first=png(200)))[0] != base[0]
    assert fingerprint(classes=("a", "c"))[0] != base[0]


def test_a_sources_own_test_split_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = made_up(monkeypatch, ("a", "b"), some(), some(first=png(77)))
    data = load_data(config, seed=0)
    assert data.splits["test"].content == some(first=png(77)).content


def test_a_size_asked_of_an_own_split_is_a_sample_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = some(first=png(77))
    config = made_up(monkeypatch, ("a", "b"), some(), own)
    data = load_data(config.model_copy(update={"test": 0.5, "train": 10}), seed=0)
    sizes = {name: len(items) for name, items in data.splits.items()}
    assert sizes == {"train": 10, "calibration": 4, "validation": 4, "test": 20}
    assert set(data.splits["test"].content) < set(own.content)
    assert np.bincount(data.splits["test"].labels).tolist() == [10, 10]
    with pytest.raises(UserError, match=r"data.test asks for 41 items, but there are 40"):
        load_data(config.model_copy(update={"test": 41}), seed=0)


@pytest.mark.parametrize(
    ("sizes", "split"),
    [({"calibration": 9}, "calibration"), ({"validation": 0.001}, "validation"), ({"test": 0.95}, "train")],
)
def test_a_split_with_fewer_items_than_classes_is_refused(sizes: dict[str, float], split: str) -> None:
    with pytest.raises(UserError, match=f"the {split} split would hold .* fewer than the 10 classes"):
        load_data(CONFIG.model_copy(update=sizes), seed=0)


def test_paths_take_variables_and_a_default_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    assert expand("${LIMBECK_DATA}/x") == Path("data/x")
    monkeypatch.setenv("LIMBECK_DATA", "/elsewhere")
    assert expand("${LIMBECK_DATA}/x") == Path("/elsewhere/x")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "MNIST/raw").is_dir(), reason="no MNIST in ../shared/data")
def test_mnist_has_the_items_that_it_is_known_for() -> None:
    source = load_source(f"mnist:{SHARED}")
    assert source.test is not None
    assert (len(source.items), len(source.test)) == (60_000, 10_000)
    assert source.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    first = np.asarray(Image.open(io.BytesIO(source.test.content[0])))
    raw = (SHARED / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()
    assert first.tobytes() == raw[16 : 16 + 784]
