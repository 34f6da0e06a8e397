from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from text_models import tiny_folder
from tiny_run import RECIPE
from typer.testing import CliRunner

from compress.cli import app
from compress.data.textmarks import mark_changes
from serve.errors import UserError
from train.augment.units import MASK

TEXT_RECIPE = """
name = "texts"
task = "text"
[data]
source = "csv:{data}"
[teacher]
model = "hf:{teacher}"
fit = {{ epochs = 1, augment = {{ delete = 0.2, synonym = 0.3 }} }}
[[students]]
name = "small"
model = "builtin:textcnn"
fit = {{ epochs = 1, augment = {{ mask_salient = 0.4 }} }}
distill = {{ temperature = 2.0, alpha = 0.5 }}
[quantize]
precisions = ["fp32"]
[accept]
max_drop_points = 60.0
"""
WORDS = ["a", "good", "film", "<b>", "great", "fun", "&", "boring", "movie"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [f"{' '.join(np.random.default_rng(at).permutation(WORDS))} {at},{'pn'[at % 2]}" for at in range(100)]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    recipe = tmp_path / "recipe.toml"
    teacher = tiny_folder(tmp_path / "teacher")
    recipe.write_text(TEXT_RECIPE.format(data=tmp_path / "data.csv", teacher=teacher))
    return recipe


def preview(recipe: Path, *options: str) -> tuple[str, str]:
    """What was printed, and the page."""
    out = recipe.parent / "page.html"
    ended = CliRunner().invoke(app, ["data", "preview", str(recipe), "--out", str(out), *options])
    if ended.exception is not None:
        raise ended.exception
    return ended.stdout, out.read_text()


def test_texts_are_shown_with_their_views_and_what_changed(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts.parent)
    said, page = preview(texts, "--rows", "5")
    assert said == f"augmented: teacher, small, small-alone\n{texts.parent / 'page.html'}\n"
    assert re.findall("<h2>(.*)</h2>", page) == ["teacher", "small, small-alone"]
    assert page.count('<th scope="row">') == 10
    assert page.count("<li>") == 40
    assert "<code>delete = 0.2, synonym = 0.3</code>" in page
    assert min(page.count("<mark>"), page.count("<del>"), page.count('<span class="mask">')) > 5
    assert "The teacher is not trained yet" in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_one_model_alone_and_a_model_that_is_not_there(texts: Path) -> None:
    assert re.findall("<h2>(.*)</h2>", preview(texts, "--model", "teacher")[1]) == ["teacher"]
    with pytest.raises(UserError, match="no model 'smal'") as error:
        preview(texts, "--model", "smal")
    assert "small" in error.value.hint


def test_a_further_teacher_is_shown_too(texts: Path) -> None:
    content = texts.read_text()
    content += """[[teachers]]
name = "second"
model = "builtin:textcnn"
fit = { epochs = 1, augment = { swap = 0.5 } }
"""
    texts.write_text(content.replace("alpha = 0.5", 'alpha = 0.5, teachers = ["teacher", "second"]'))
    said, page = preview(texts)
    assert said.startswith("augmented: teacher, second, small, small-alone\n")
    assert "<code>swap = 0.5</code>" in page
    assert re.findall("<h2>(.*)</h2>", preview(texts, "--model", "second")[1]) == ["second"]


@pytest.fixture
def more(texts: Path) -> Path:
    """The recipe with texts without labels besides."""
    (texts.parent / "more.csv").write_text(
        "\n".join(["text", *(f"a great unseen film {at}" for at in range(30))]) + "\n"
    )
    with_more = f'[data.unlabelled]\nsource = "csv:{texts.parent / "more.csv"}"\n[teacher]\n'
    texts.write_text(texts.read_text().replace("[teacher]\n", with_more))
    return texts


def test_items_without_labels_are_shown_to_those_who_learn_from_them(more: Path) -> None:
    _, page = preview(more, "--rows", "6", "--set", "students.0.fit.augment={swap=0.5}")
    assert "<span>30 unlabelled</span>" in page
    teacher, student, control = page.split("<section>")[1:]
    assert [re.findall("<h2>(.*)</h2>", part)[0] for part in (teacher, student, control)] == [
        "teacher",
        "small",
        "small-alone",
    ]
    marked = re.compile('<span class="quiet">unlabelled</span></th>\\s*<td><p>a great unseen film')
    assert [len(marked.findall(part)) for part in (teacher, student, control)] == [0, 2, 0]
    assert [part.count('<th scope="row">') for part in (teacher, student, control)] == [6, 8, 6]
    assert ["[data.unlabelled]" in part for part in (teacher, student, control)] == [False, True, False]
    assert "<mark>" in marked.split(student)[-1]


def test_a_student_that_learns_from_unlabelled_items_alone_is_shown_no_others(more: Path) -> None:
    only = ("--set", 'students.0.distill={alpha=1.0, items="unlabelled"}', "--set", "students.0.control=false")
    _, page = preview(more, "--model", "small", "--rows", "5", *only)
    assert page.count("unseen film") >= 5
    assert page.count('<th scope="row">') == page.count('<span class="quiet">unlabelled</span>') == 5
    _, page = preview(more, "--rows", "3", "--set", "teacher.fit.augment={}", "--set", "students.0.fit.augment={}")
    assert "Nothing is augmented" in page
    assert page.count('<span class="quiet">unlabelled</span>') == 1


def test_views_of_unlabelled_images_are_those_of_their_place_in_training(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for at in range(4):
        Image.fromarray(np.random.default_rng(at).integers(0, 255, (8, 8), np.uint8)).save(tmp_path / f"more/{at}.png")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + f'\n[data.unlabelled]\nsource = "imagefolder:{tmp_path / "more"}"\n')
    asked = ("--set", "teacher.fit.augment={}", "--set", "students.0.fit.augment={flip=true}")
    _, page = preview(recipe, "--model", "small", "--rows", "3", *asked)
    found = re.findall(r'src="data:image/png;base64,([^"]*)" alt="unlabelled', page)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in found]
    assert len(images) == 5
    assert all((image == images[0]).all() or (image == images[0][:, ::-1]).all() for image in images[1:])


def test_nothing_augmented_is_said(texts: Path) -> None:
    said, page = preview(texts, "--model", "teacher", "--set", "teacher.fit.augment={}")
    assert said.startswith("Nothing is augmented: teacher has no fit.augment.")
    assert "Nothing is augmented" in page
    assert page.count("<tr>") == 13
    assert "<li>" not in page


def test_images_are_shown_as_training_sees_them(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    said, page = preview(recipe, "--rows", "3")
    assert said.startswith("augmented: teacher\n")
    found = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]*)"', page)]
    assert len(found) == 3 * 5
    images = [np.asarray(Image.open(io.BytesIO(png))) for png in found]
    assert {image.shape for image in images} == {(8, 8)}
    before, after = images[0], images[1:5]
    padded = np.pad(before, 1)
    shifted = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    assert all(any((image == one).all() for one in shifted) for image in after)
    assert any((image != before).any() for image in after)


def test_mixed_images_are_shown_mixed(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    _, page = preview(recipe, "--rows", "2", "--set", "teacher.fit.augment={mixup=4.0}")
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    rows = [found[:5], found[5:]]
    assert all(len(set(row)) == 5 for row in rows)  # the item, and another partner in each epoch


def test_settings_are_shown_as_far_as_they_were_asked_for(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    asked = "teacher.fit.augment={blur=1.0, probability={blur=0.2}}"
    _, page = preview(recipe, "--rows", "1", "--set", asked)
    assert "blur = 1.0, probability = {blur = 0.2}" in re.sub(r"<[^>]*>", "", page)


def test_the_pages_folder_is_made_and_a_page_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    written = CliRunner().invoke(app, ["data", "preview", str(recipe), "-o", str(tmp_path / "new" / "page.html")])
    assert written.exit_code == 0
    assert (tmp_path / "new" / "page.html").exists()
    ended = CliRunner().invoke(app, ["data", "preview", str(recipe), "-o", str(tmp_path)])
    assert isinstance(ended.exception, UserError)
    assert "cannot write the page" in ended.exception.message
    assert "--out" in ended.exception.hint


def test_changes_are_found_word_by_word() -> None:
    spans = mark_changes("a good film", f"a film indeed {MASK}")
    assert [(span.kind, span.gap + span.text) for span in spans[:4]] == [
        ("same", "a"),
        ("gone", " good"),
        ("same", " film"),
        ("new", " indeed"),
    ]
    assert spans[4].kind == "mask"
    assert "".join(span.gap + span.text for span in mark_changes("我喜欢", "我欢")) == "我喜欢"


def test_the_first_word_stands_apart_from_those_that_went_before_it() -> None:
    def shown(before: str, after: str) -> list[str]:
        return [f"{span.kind}:{span.gap}{span.text}" for span in mark_changes(before, after)]

    assert shown("what was it", "was it") == ["gone:what", "same: was", "same: it"]
    assert shown("what was it", "who was it") == ["gone:what", "new: who", "same: was", "same: it"]
    assert shown("what", "who") == ["gone:what", "new:who"]
    assert shown("我喜欢", "喜欢") == ["gone:我", "same:喜", "same:欢"]
