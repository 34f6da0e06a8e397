"""`limbeck tune` on texts, and the thesauri that a search depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_compress_tune import quiet, trials_of

from compress.tune.command import tune
from compress.tune.objective import RecipeObjective
from serve.errors import UserError


def test_a_text_classifier_is_tuned_over_folds(tmp_path: Path) -> None:
    rows = [f"{'good' if at % 2 else 'bad'} film number {at},{'yes' if at % 2 else 'no'}" for at in range(120)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "words.tsv").write_text("film\tmovie\n")
    path = tmp_path / "texts.toml"
    path.write_text(
        f"""
name = "texts"
task = "text"
[data]
source = "csv:{tmp_path / "reviews.csv"}"
[teacher]
model = "builtin:textcnn"
[teacher.fit]
epochs = 3
batch_size = 16
learning_rate = 1e-2
augment = {{ synonym = 0.1, synonyms = "{tmp_path / "words.tsv"}" }}
[accept]
max_drop_points = 60.0
[tune]
model = "teacher"
folds = 2
sampler = "grid"
[tune.search]
"teacher.fit.learning_rate" = [1e-8, 1e-2]
"""
    )
    folder, _ = tune(path, tmp_path / "out", say=quiet)
    slow, quick = (trial["value"] for trial in trials_of(folder))
    assert quick > 0.9 > slow

    (tmp_path / "words.tsv").write_text("film\tmovie,picture\n")  # from which further trials would learn
    with pytest.raises(UserError, match="another search"):
        tune(path, folder, say=quiet)


def test_a_search_knows_the_thesauri_that_it_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only some trials learn from; no trial is trained here."""
    monkeypatch.setattr(RecipeObjective, "__call__", lambda *_: 0.5)
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"film {at},{'yn'[at % 2]}\n" for at in range(60)))
    words = tmp_path / "words.tsv"
    words.write_text("film\tmovie\n")
    path = tmp_path / "texts.toml"
    path.write_text(
        f"""
name = "texts"
task = "text"
[data]
source = "csv:{tmp_path / "reviews.csv"}"
[teacher]
model = "builtin:textcnn"
[accept]
max_drop_points = 60.0
[tune]
model = "teacher"
trials = 2
[tune.search]
"teacher.fit.augment" = [{{}}, {{ synonym = 0.1, synonyms = "{words}" }}]
"""
    )
    folder, _ = tune(path, tmp_path / "out", say=quiet)
    tune(path, folder, say=quiet)
    words.write_text("film\tmovie,picture\n")
    with pytest.raises(UserError, match="another search"):
        tune(path, folder, say=quiet)
