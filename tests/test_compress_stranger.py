"""A stranger with texts of their own, from file to served answer, with the commands of the README."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serve.launch import start
from train.sources import load_source

CHINESE = Path(__file__).resolve().parent / "data" / "chinese.csv"
FEW = [
    "teacher.fit.epochs=6",
    "students.*.fit.epochs=2",
    "evaluate.latency_samples=20",
    "evaluate.batch_sizes=[1]",
    'quantize.precisions=["fp32"]',
]
# The classes are found or not found in so few epochs; what is at stake here is the way, not the verdict.
SURE = "accept.max_drop_points=100"


def limbeck(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the stranger's folder."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "COLUMNS": "100"}
    command = [sys.executable, "-m", "compress", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copyfile(CHINESE, folder / "reviews.csv")
    return folder


def test_from_a_file_of_texts_to_a_served_answer(folder: Path) -> None:
    told = limbeck(folder, "init", "reviews.csv")
    assert told.returncode == 0, told.stderr
    assert "limbeck run recipe.toml" in told.stdout

    ran = limbeck(folder, "run", "recipe.toml", *(part for change in [*FEW, SURE] for part in ("--set", change)))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "serve it: limbeck serve runs/reviews"
    assert {"report.html", "report.md", "MODEL_CARD.md"} <= {file.name for file in (folder / "runs/reviews").iterdir()}

    with start(folder / "runs/reviews") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        body = json.dumps({"inputs": ["这部电影非常好看，我很喜欢。"]}, ensure_ascii=False).encode()
        connection.request("POST", "/classify", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
    assert answer.status == 200
    (prediction,) = content["predictions"]
    assert prediction["label"] in load_source(f"csv:{CHINESE}").classes
    assert 0.5 <= prediction["score"] <= 1
    assert content["model"]["name"].startswith("reviews/")


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (CHINESE.read_text(encoding="utf-8"), 0, "a run would accept this data"),
        ("text,label\ngut,ja\nschlecht,nein\nnaja,ja\n", 2, "there are 3 items"),
        ("text,label\n" + "".join(f"text {at},ja\n" for at in range(60)), 2, "every item has the label 'ja'"),
    ],
    ids=["good", "three-rows", "one-class"],
)
def test_data_check_ends_with_what_a_run_would_do(tmp_path: Path, content: str, code: int, words: str) -> None:
    (tmp_path / "data.csv").write_text(content, encoding="utf-8")
    checked = limbeck(tmp_path, "data", "check", "data.csv")
    assert (checked.returncode, words in checked.stdout) == (code, True), checked.stdout + checked.stderr
