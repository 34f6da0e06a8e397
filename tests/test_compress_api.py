"""The commands from Python, and a package without a server."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LABELS, TEXT_LABELS, colored, tiny_package, tiny_text_package
from tiny_run import Ran, content

import compress
from compress import api
from serve.bodies import Query
from serve.errors import UserError
from serve.limits import Limits
from serve.models import open_engine

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "dark": (0, 0, 0)}
IMAGES = [colored(*COLORS[label]) for label in LABELS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> compress.Model:
    return compress.load(tiny_package(tmp_path_factory.mktemp("api") / "package").path)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> compress.Model:
    return compress.load(tiny_text_package(tmp_path_factory.mktemp("api") / "words").path)


def test_importing_compress_loads_nothing_heavy_and_names_what_there_is() -> None:
    heavy = ["torch", "transformers", "onnxruntime", "pydantic", "numpy", "typer"]
    program = f"import sys, compress; print([name for name in {heavy} if name in sys.modules]); print(dir(compress))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded, names = done.stdout.splitlines()
    assert loaded == "[]"
    assert {"run", "read_run", "load", "evaluate", "serving"} <= set(eval(names))
    assert compress.run is api.run
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = compress.nothing  # type: ignore[attr-defined]


def test_every_function_is_documented() -> None:
    functions = [getattr(compress, name) for name in compress.__all__]
    functions += [api.report, api.repeat, api.crossvalidate, api.tune, api.optimize, api.init]
    assert [function for function in functions if not function.__doc__] == []


def test_a_model_answers_as_its_server_does(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package", abstain_below=0.9).path
    engine = open_engine(package, Limits())
    served = engine.answer(Query(list(IMAGES), 4))
    engine.close()
    own = compress.load(package)
    assert own.classify(IMAGES, top_k=4) == served["predictions"]
    assert {"id": own.id, "name": own.name} == served["model"]


def test_images_are_bytes_or_files_and_never_text(model: compress.Model, tmp_path: Path) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(colored(255, 0, 0))
    assert model.classify([file])[0]["label"] == "red"
    assert np.array_equal(model.scores([file]), model.scores([colored(255, 0, 0)]))
    for item, what in ((str(file), "given as text"), (b"nonsense", "item 1"), (tmp_path / "no.png", "item 1")):
        with pytest.raises(UserError, match=what):
            model.classify([file, item])


def test_texts_are_classified_and_a_cut_one_is_marked(words: compress.Model) -> None:
    short, long = words.classify(["good", "very good " * 30], top_k=1)
    assert "truncated" not in short
    assert long["truncated"] is True
    assert len(short["top_k"]) == 1
    assert words.scores(["good", "bad"]).shape == (2, len(TEXT_LABELS))
    assert words.classify([]) == []


def test_what_is_asked_wrongly_is_a_user_error(words: compress.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one item, not a list"):
        words.classify("good")
    with pytest.raises(UserError, match="top_k is 9"):
        words.classify(["good"], top_k=9)
    with pytest.raises(UserError, match="surrogates not allowed"):
        words.classify(["\ud800"])
    with pytest.raises(UserError, match="is not there"):
        compress.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="no report"):
        compress.read_run(tmp_path)


def test_evaluate_counts_what_is_right(model: compress.Model) -> None:
    found = compress.evaluate(model, IMAGES, LABELS)
    assert found.predicted == tuple(each["label"] for each in model.classify(IMAGES))
    assert found.accuracy == sum(map(str.__eq__, found.predicted, LABELS)) / 4
    wrong = compress.evaluate(model, IMAGES, [LABELS[(LABELS.index(label) + 1) % 4] for label in found.predicted])
    assert (wrong.n, wrong.accuracy) == (4, 0.0)
    assert wrong.accuracy_ci95[0] == 0.0
    assert 0.3 < wrong.accuracy_ci95[1] < 0.6
    with pytest.raises(UserError, match="no label 'redd'") as caught:
        compress.evaluate(model, IMAGES, ["redd", *LABELS[1:]])
    assert "did you mean 'red'" in caught.value.hint
    with pytest.raises(UserError, match="items: 4, labels: 1"):
        compress.evaluate(model, IMAGES, ["red"])


def test_changes_are_what_set_takes() -> None:
    given: dict[str, Any] = {"teacher.fit.epochs": 3, "name": 'a "b"', "quantize.precisions": ["fp32"], "x": True}
    parsed = [tomllib.loads(f"value = {line.partition('=')[2]}")["value"] for line in api._changes(given)]
    assert parsed == list(given.values())
    assert api._changes(["a=1"]) == ["a=1"]
    with pytest.raises(UserError, match=r"changes\['x'\] is None"):
        api._changes({"x": None})
    with pytest.raises(UserError, match="changes is the text"):
        api._changes("a=1")


def test_what_is_wrong_in_a_recipe_is_said_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe at"):
        compress.run(tmp_path / "nothing.toml")
    with pytest.raises(UserError) as caught:
        compress.run({**content(), "nmae": "x"})
    assert "name" in caught.value.hint


def test_a_run_goes_on_and_is_read_loaded_and_written_again(tiny: Ran, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(tiny.folder, folder)
    recipe = content()
    done = compress.run(recipe, folder, quiet=True)
    assert done.selected == tiny.report.selected
    assert recipe == content()  # what was given is not changed
    again = compress.read_run(folder)
    assert again.report == done.report
    image = next(iter(_digits()))
    assert again.load().classify([image])[0]["label"] in again.load().labels
    assert again.load("teacher-fp32").id == done.report.variant("teacher-fp32").package_id
    (folder / "report.html").unlink()
    assert api.report(folder) == done.report
    assert (folder / "report.html").exists()


def _digits() -> list[bytes]:
    from helpers import encoded
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[0] * 15.9375).astype(np.uint8)
    return [encoded(Image.fromarray(pixels))]
