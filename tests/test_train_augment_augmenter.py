"""What text augmentation builds from texts and models before training, and how views reach student and teacher."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from text_models import FAMILIES, text_classifier, tiny_folder

from serve.errors import UserError
from train.augment import AugmentConfig
from train.augment.augmenter import check_augmentation, origin, text_augmenter
from train.augment.masks import MaskingPreparer
from train.augment.saliency import Salience
from train.augment.synonyms import neighbours, read_thesaurus
from train.augment.texts import TextAugmenter
from train.augment.units import MASK
from train.classifier import Classifier
from train.distill import DistillConfig
from train.fit import fit
from train.fit_config import FitConfig
from train.inputs import TextInputs
from train.models.embeddings import input_embeddings
from train.sources import Items
from train.sources.base import UNLABELLED
from train.teaching import Teaching
from train.views import View

TEXTS = ["a good film , great fun !", "this movie was boring", "it is not the best film", "bad", "(good) fun"]


def inputs(classifier: Classifier, texts: list[str] = TEXTS) -> TextInputs:
    items = Items([text.encode() for text in texts], np.arange(len(texts)) % 2)
    return TextInputs(items, classifier.preparer())


def built(
    own: Classifier, teacher: Classifier | None = None, texts: list[str] = TEXTS, **config: object
) -> tuple[TextAugmenter, list[str]]:
    said: list[str] = []
    augment = AugmentConfig(**config)  # type: ignore[arg-type]
    found = text_augmenter(augment, inputs(own, texts), teacher, own, 1, said.append)
    assert found is not None
    return found, said


def with_mask_token(folder: Path) -> Path:
    """The same model, whose tokenizer calls an id that no word has [MASK]."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["added_tokens"].append(
        {"id": 4, "content": "[MASK]", "special": True, "single_word": False, "lstrip": True, "rstrip": False}
        | {"normalized": False}
    )
    spec["model"]["vocab"] = {"[MASK]" if id_ == 4 else word: id_ for word, id_ in spec["model"]["vocab"].items()}
    path.write_text(json.dumps(spec))
    return folder


def test_nothing_is_built_where_nothing_is_asked_for(tmp_path: Path) -> None:
    own = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    assert text_augmenter(AugmentConfig(), inputs(own), None, own, 1, print) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_synonyms_are_the_nearest_whole_words_of_the_data(tmp_path: Path, family: str) -> None:
    model = text_classifier(f"hf:{tiny_folder(tmp_path, family)}")
    table = model.preparer()
    known = ("good", "great", "film", "movie", "boring", "bad", "fun")
    ids = {word: [id_ for id_ in table.prepare([word.encode()])[0].tolist() if id_ > 4] for word in known}
    with torch.no_grad():
        weight = input_embeddings(model).weight
        weight[ids["great"][0]] = weight[ids["good"][0]] * 1.01
        weight[ids["movie"][0]] = weight[ids["film"][0]] * 0.99
    found = neighbours({**dict.fromkeys(known, 3), "unheard-of": 9, "Good": 1}, model)
    assert set(found) == set(known)
    assert (found["good"][0], found["great"][0], found["film"][0]) == ("great", "good", "movie")
    assert all(word not in others and len(others) == 6 for word, others in found.items())


def test_a_student_takes_its_teachers_synonyms_and_new_embeddings_have_none(tmp_path: Path) -> None:
    teacher, own = text_classifier(f"hf:{tiny_folder(tmp_path)}"), text_classifier("builtin:textcnn")
    maker, said = built(own, teacher, synonym=1.0)
    assert "synonyms for" in said[0]
    words = {word for index in range(50) for word in maker.view("good film", 0, index).split()}
    assert len(words) > 4
    assert words <= set(" ".join(TEXTS).replace("(", "").replace(")", "").split())
    with pytest.raises(UserError, match="those of 'builtin:textcnn' are new"):
        built(own, synonym=0.1)


def test_a_thesaurus_may_have_a_word_in_both_cases(tmp_path: Path) -> None:
    (path := tmp_path / "words.json").write_text('{"Apple": ["Pear"], "apple": ["plum", "Pear"]}')
    assert read_thesaurus(str(path)) == {"apple": ("Pear", "plum")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.tsv", "good\tfine, great \nFilm\tmovie\n\nbad\tbad,\n"),
        ("words.json", '{"good": ["fine", "great"], "film": ["movie", "film"], "bad": []}'),
    ],
)
def test_a_thesaurus_is_read_in_both_forms(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert read_thesaurus(str(path)) == {"good": ("fine", "great"), "film": ("movie",)}
    config = AugmentConfig(synonym=1.0, synonyms=str(path))
    check_augmentation(config)
    before = origin(config)
    path.write_text(content.replace("movie", "flick"))
    assert origin(config) != before
    maker, said = built(text_classifier("builtin:textcnn"), synonym=1.0, synonyms=str(path))
    assert maker.view("a Film .", 0, 0) == "a Flick ."
    assert said == ["synonyms for 22% of the words of the training texts"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.tsv", "good fine", "line 1 has no tab"),
        ("words.tsv", "\n", "holds no synonyms"),
        ("words.json", "[1]", "not an object of lists"),
        ("words.json", "{", "cannot be read"),
        ("gone.tsv", None, "no thesaurus at .*gone.tsv"),
    ],
)
def test_a_thesaurus_that_is_none_is_refused_before_training(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        check_augmentation(AugmentConfig(synonym=0.1, synonyms=str(tmp_path / name)))
    check_augmentation(AugmentConfig())  # nobody asks for one


def test_libraries_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nltk", "nltk.corpus", "jellyfish"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="needs nltk") as error:
        check_augmentation(AugmentConfig(synonym=0.1, synonyms="wordnet"))
    assert "limbeck[wordnet]" in error.value.hint
    with pytest.raises(UserError, match="needs jellyfish") as error:
        check_augmentation(AugmentConfig(homophone=0.1))
    assert "phonetics" in error.value.hint


def test_homophones_are_words_of_the_data_that_sound_alike() -> None:
    pytest.importorskip("jellyfish")
    pytest.importorskip("pypinyin")
    texts = ["there their they're good cat", "knight night write right 1 2", "他她好号猫"]
    maker, _ = built(text_classifier("builtin:textcnn"), texts=texts, homophone=1.0)
    assert maker.view("There", 0, 0) in ("Their", "They're")
    assert {maker.view("night good cat", 0, index) for index in range(20)} == {"knight good cat"}
    assert {maker.view("他猫", 0, index) for index in range(20)} == {"她猫"}  # hao3 and hao4 are two tones


def test_case_that_a_tokenizer_does_not_see_is_told(tmp_path: Path) -> None:
    said = built(text_classifier("builtin:textcnn"), case=0.5)[1]
    assert said == ["fit.augment.case does nothing: the tokenizer of 'builtin:textcnn' makes all letters lower case"]
    assert built(text_classifier("builtin:textcnn", lowercase=False), case=0.5)[1] == []
    lower = text_classifier("builtin:textcnn")  # a sharp s is SS in capitals, which says nothing of case
    assert built(lower, texts=["die stra\u00dfe", "der film"], case=0.5)[1] == said
    why = "fit.augment.case does nothing: the training texts have no letters with capitals"
    assert built(lower, texts=["\u7535\u5f71\u597d", "42"], case=0.5)[1] == [why]


def test_a_view_of_which_nothing_can_be_read_is_the_text_as_it_was_written() -> None:
    own, texts = text_classifier("builtin:textcnn"), ["good film", "\x1c bad"]  # no mask token: masked is left out
    maker, _ = built(own, text_classifier("builtin:textcnn"), texts=texts, mask_salient=0.5, span=1.0, delete=0.5)
    views = [maker.view(text, epoch, at) for epoch in range(100) for at, text in enumerate(texts)]
    assert maker.tokenize(views, inputs(own, texts)).shape[0] == 200
    assert {view.count(MASK) for view in views} == {0, 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_saliency_is_the_gradient_of_the_predicted_logit(tmp_path: Path, family: str) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path, family)}")
    ranks = Salience(teacher).ranks(TEXTS)
    assert [sorted(rank.tolist()) for rank in ranks] == [list(range(len(text.split()))) for text in TEXTS]
    # the same by differences: move each token's embedding a little along each dimension
    text = "it is not the best film"  # one token a word
    ids = torch.from_numpy(teacher.preparer().prepare([text.encode()]))
    first = int(family != "gpt2")
    kept = input_embeddings(teacher)
    with torch.no_grad():
        base = kept(ids)
        answer = int(teacher(ids).argmax())
        strengths = []
        for token in range(first, first + 6):
            moved = base.repeat(base.shape[2], 1, 1)
            moved[torch.arange(base.shape[2]), token, torch.arange(base.shape[2])] += 1e-2
            hook = kept.register_forward_hook(lambda _, __, ___, moved=moved: moved)
            logits = teacher(ids.repeat(base.shape[2], 1))[:, answer]
            hook.remove()
            strengths.append(float((logits - teacher(ids)[0, answer]).norm()))
    expected = np.argsort(np.argsort(-np.array(strengths)))
    assert ranks[2].tolist() == expected.tolist()


def test_words_that_the_teacher_does_not_read_come_last(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path)}", max_length=5)
    (rank,) = Salience(teacher).ranks(["good bad film fun best boring"])
    assert sorted(rank[:3].tolist()) == [0, 1, 2]
    assert rank[3:].tolist() == [3, 4, 5]


def test_a_masked_word_is_the_mask_token_or_left_out_and_written_text_never_is(tmp_path: Path) -> None:
    masked = MaskingPreparer(text_classifier(f"hf:{with_mask_token(tiny_folder(tmp_path))}"))
    plain = text_classifier(f"hf:{tiny_folder(tmp_path)}").preparer()
    cnn = text_classifier("builtin:textcnn")
    text = f"a {MASK} film {MASK}"
    a, film = (plain.prepare([word])[0, 1] for word in (b"a", b"film"))
    assert masked.tokenize([text]).tolist() == [[2, a, 4, film, 4, 3]]
    assert 4 not in masked.tokenize(["a [MASK] film"])
    assert masked.tokenize(["a good film"]).tolist() == plain.prepare([b"a good film"]).tolist()
    assert MaskingPreparer(cnn).tokenize([text]).tolist() == cnn.preparer().prepare([b"a film"]).tolist()


def test_masks_reach_student_and_teacher_each_in_its_own_way(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{with_mask_token(tiny_folder(tmp_path))}")
    own = text_classifier("builtin:textcnn")
    maker, said = built(own, teacher, mask_salient=0.5)
    assert said == ["asking the teacher which words of 5 texts it decides by"]
    config = AugmentConfig(mask_salient=0.5)
    view = View(inputs(own), config, 1, None, [inputs(teacher)], maker)
    batch = view.__getitems__([0, 1, 2])
    made = [maker.view(TEXTS[at], 0, at) for at in range(3)]
    masks = sum(text.count(MASK) for text in made)
    assert masks > 0
    assert int((batch["teacher_inputs"] == 4).sum()) == masks
    left = [" ".join(word for word in text.split() if word != MASK) for text in made]
    assert batch["inputs"].tolist() == own.preparer().prepare([text.encode() for text in left]).tolist()
    with pytest.raises(UserError, match="here is no teacher"):
        built(own, mask_salient=0.5)


def test_student_and_control_see_the_same_views_of_a_guide(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'teacher')}")
    config = FitConfig(epochs=1, batch_size=5, augment=AugmentConfig(mask_salient=0.5, synonym=0.5))
    seen: list[list[torch.Tensor]] = []
    for teaching in (Teaching(teacher, DistillConfig(temperature=2.0, alpha=0.5), inputs(teacher)), None):
        own = text_classifier("builtin:textcnn")
        seen.append([])
        own.register_forward_pre_hook(lambda _, given: seen[-1].append(given[0].clone()) if _.training else None)
        fit(own, config, inputs(own), inputs(own), 3, tmp_path / f"out{len(seen)}", teaching, guide=teacher)
    assert all(torch.equal(one, two) for one, two in zip(*seen, strict=True))
    assert len(seen[0]) == 1
    plain = inputs(own).gather(np.arange(5))
    assert int((seen[0][0] != 0).sum()) < np.count_nonzero(plain)  # masked words are left out


def test_what_was_cut_reaches_training_without_its_label() -> None:
    own = text_classifier("builtin:textcnn")
    maker, _ = built(own, span=0.4, splice=0.4)
    view = View(inputs(own), AugmentConfig(span=0.4, splice=0.4), 1, None, (), maker)
    rows, whole = list(range(5)), 0
    for epoch in range(10):
        view.epoch = epoch
        batch = view.__getitems__(rows)
        for row, label in zip(rows, batch["labels"].tolist(), strict=True):
            made = maker.view(TEXTS[row], epoch, row)
            assert label == (row % 2 if made == TEXTS[row] else UNLABELLED)
            whole += made == TEXTS[row]
    assert 0 < whole < 50


def test_the_loss_on_labels_leaves_out_what_was_cut(tmp_path: Path) -> None:
    """With every text cut, the labels have no say any more: any labels give the same student."""
    seed = 4  # no text is spliced with itself
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'teacher')}")
    config = FitConfig(epochs=1, batch_size=5, augment=AugmentConfig(splice=1.0))
    texts = [" ".join(f"{at}word{row}" for at in range(30)) for row in range(4)]
    weights = []
    for name, labels in (("one", [0, 1, 0, 1]), ("two", [1, 0, 1, 0])):
        own = text_classifier("builtin:textcnn")
        items = Items([text.encode() for text in texts], np.array(labels))
        own_inputs, theirs = (TextInputs(items, each.preparer()) for each in (own, teacher))
        maker = text_augmenter(config.augment, own_inputs, teacher, own, seed, lambda _: None)
        assert maker is not None
        assert not any(maker.see(text, 0, row)[1] for row, text in enumerate(texts))
        teaching = Teaching(teacher, DistillConfig(temperature=2.0, alpha=0.5), theirs)
        fit(own, config, own_inputs, inputs(own), seed, tmp_path / name, teaching)
        weights.append(torch.cat([value.flatten().float() for value in own.state_dict().values()]))
    assert torch.equal(*weights)
