"""`limbeck tune` on texts, and the thesauri that a search depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_compress_tune import quiet, trials_of

from compress.tune.command import tune
from compress.tune.objective import RecipeObjective
from serve.errors import UserError


def texts(place: Path, fit: str, search: str) -> Path:
    """A recipe on 120 texts that are easy to tell apart, whose teacher is searched; `search` is what [tune] says."""
    rows = [f"{'good' if at % 2 else 'bad'} film number {at},{'yes' if at % 2 else 'no'}" for at in range(120)]
    (place / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    path = place / "texts.toml"
    path.write_text(
        f"""
name = "texts"
task = "text"
[data]
source = "csv:{place / "reviews.csv"}"
[teacher]
model = "builtin:textcnn"
{fit}
[accept]
max_drop_points = 60.0
[tune]
model = "teacher"
{search}
"""
    )
    return path


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A thesaurus."""
    path = tmp_path / "words.tsv"
    path.write_text("film\tmovie\n")
    return path


def test_a_text_classifier_is_tuned_over_folds(tmp_path: Path, words: Path) -> None:
    augment = f'{{ synonym = 0.1, synonyms = "{words}" }}'
    fit = f"fit = {{ epochs = 3, batch_size = 16, learning_rate = 1e-2, augment = {augment} }}"
    search = 'folds = 2\nsampler = "grid"\nsearch = { "teacher.fit.learning_rate" = [1e-8, 1e-2] }'
    path = texts(tmp_path, fit, search)
    folder, _ = tune(path, tmp_path / "out", say=quiet)
    slow, quick = (trial["value"] for trial in trials_of(folder))
    assert quick > 0.9 > slow

    words.write_text("film\tmovie,picture\n")  # from which further trials would learn
    with pytest.raises(UserError, match="another search"):
        tune(path, folder, say=quiet)


def test_a_search_knows_the_thesauri_that_it_searches(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that only some trials learn from; no trial is trained here."""
    monkeypatch.setattr(RecipeObjective, "__call__", lambda *_: 0.5)
    augment = f'{{ synonym = 0.1, synonyms = "{words}" }}'
    path = texts(tmp_path, "", f'trials = 2\nsearch = {{ "teacher.fit.augment" = [{{}}, {augment}] }}')
    folder, _ = tune(path, tmp_path / "out", say=quiet)
    tune(path, folder, say=quiet)
    words.write_text("film\tmovie,picture\n")
    with pytest.raises(UserError, match="another search"):
        tune(path, folder, say=quiet)
