"""What a student is taught from inside its teacher, on every family of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder

from serve.errors import UserError
from train.augment import AugmentConfig
from train.classifier import Classifier, load_classifier
from train.distill import DistillConfig, FeatureConfig
from train.distill.inside import look_inside
from train.distill.lesson import Lesson
from train.fit import fit
from train.fit_config import FitConfig
from train.fit_result import FitResult
from train.inputs import TextInputs
from train.losses import cross_entropy
from train.sources import Items
from train.teaching import Teaching

ALL = ("hidden-states", "attention", "relations")


def config(*losses: str, layers: str = "all", **changes: float) -> DistillConfig:
    features = tuple(FeatureConfig(loss=loss, weight=2.0, layers=layers) for loss in losses)  # type: ignore[arg-type]
    return DistillConfig(**{"temperature": 2.0, "alpha": 0.5, **changes}, features=features)


def pair(folder: Path, family: str = "bert", layers: int = 2) -> tuple[Classifier, Classifier]:
    teacher = text_classifier(f"hf:{tiny_folder(folder, family, layers=4)}")
    return text_classifier(f"teacher-layers:{layers}", teacher=teacher), teacher.eval()


def loss(student: Classifier, teacher: Classifier, settings: DistillConfig) -> float:
    """The loss of one batch, in eval mode so that dropout does not blur it."""
    lesson = Lesson(student, teacher, settings)
    inputs, labels = torch.from_numpy(student.preparer().prepare(TEXTS)), torch.zeros(len(TEXTS), dtype=torch.int64)
    logits = student.eval()(inputs)
    found = lesson.loss(logits, lesson.answers(inputs), inputs, labels, cross_entropy).item()
    lesson.end()
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("feature", ALL)
def test_a_student_that_is_its_teacher_has_no_loss_inside(tmp_path: Path, family: str, feature: str) -> None:
    same, teacher = pair(tmp_path, family, layers=4)
    other, _ = pair(tmp_path, family, layers=2)
    assert loss(same, teacher, config(feature)) == pytest.approx(loss(same, teacher, config()), abs=1e-5)
    assert loss(other, teacher, config(feature)) > loss(other, teacher, config()) + 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_keys_are_those_of_the_models_own_attention(tmp_path: Path, family: str) -> None:
    from train.distill.encoders import scores

    _, teacher = pair(tmp_path, family)
    teacher.network.model.set_attn_implementation("eager")
    inside = look_inside(teacher)
    ids = torch.from_numpy(teacher.preparer().prepare(TEXTS[:1]))
    with torch.no_grad():
        output = teacher.network.model(input_ids=ids, output_attentions=True, output_hidden_states=True)
    for layer in range(4):
        ours = scores(inside.vectors("query", layer), inside.vectors("key", layer), inside.heads)
        if family == "gpt2":
            ours = ours.masked_fill(torch.ones_like(ours).triu(1) > 0, -1e9)
        assert torch.allclose(ours.softmax(dim=3), output.attentions[layer], atol=1e-5)
        if layer < 3:  # what transformers returns as the last may have passed a norm after the layers
            assert torch.equal(inside.hidden(layer), output.hidden_states[layer + 1].float())
    inside.taps.close()


def test_the_last_layer_alone_can_be_compared(tmp_path: Path) -> None:
    student, teacher = pair(tmp_path)
    base = loss(student, teacher, config())
    every, last = (loss(student, teacher, config("hidden-states", layers=layers)) - base for layers in ("all", "last"))
    single, _ = pair(tmp_path, layers=1)
    assert 0 < last != every > 0
    assert loss(single, teacher, config("hidden-states", layers="last")) == pytest.approx(
        loss(single, teacher, config("hidden-states"))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_what_enters_the_first_layer(tmp_path: Path, family: str) -> None:
    student, teacher = pair(tmp_path, family)
    assert loss(student, teacher, config("embeddings")) == pytest.approx(loss(student, teacher, config()), abs=1e-5)
    with torch.no_grad():
        torch.nn.init.normal_(student.network.model.get_input_embeddings().weight)
    ids = torch.from_numpy(student.preparer().prepare(TEXTS))
    mask = (ids != student.front.pad_id).long()
    with torch.no_grad():
        ours, theirs = (
            model.network.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[0].numpy()
            for model in (student, teacher)
        )
    lengths = mask.sum(dim=1).tolist()
    expected = 2.0 * sum(((ours[n, :k] - theirs[n, :k]) ** 2).mean() for n, k in enumerate(lengths))
    found = loss(student, teacher, config("embeddings")) - loss(student, teacher, config())
    assert found == pytest.approx(expected, rel=1e-3)


def test_layers_are_paired_as_a_recipe_says(tmp_path: Path) -> None:
    student, teacher = pair(tmp_path)
    spread = text_classifier("teacher-layers:2", teacher=teacher, take="spread")

    def with_layers(layers: object, one: Classifier = student) -> float:
        return loss(one, teacher, config("hidden-states", layers=layers))  # type: ignore[arg-type]

    assert with_layers(((1, 3),)) == pytest.approx(with_layers("last"))
    assert with_layers(((0, 1), (1, 3))) == pytest.approx(with_layers("all"))
    assert with_layers(((0, 0), (1, 3)), spread) == pytest.approx(with_layers("all", spread))
    assert with_layers(((1, 0),)) != pytest.approx(with_layers("last"))
    for pair_, who in (((2, 0), "student has 2 layers"), ((0, 4), "teacher has 4 layers")):
        with pytest.raises(UserError, match=who):
            with_layers((pair_,))


@pytest.mark.parametrize(("take", "pairs"), [("every", ((0, 1), (1, 3))), ([2, 3], ((0, 2), (1, 3)))])
def test_layers_that_were_chosen_are_compared_with_those_they_began_as(
    tmp_path: Path, take: str | list[int], pairs: tuple[tuple[int, int], ...]
) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'four', layers=4)}")
    deeper = text_classifier(f"hf:{tiny_folder(tmp_path / 'five', layers=5)}").eval()
    student = text_classifier("teacher-layers:2", teacher=teacher, take=take)

    def apart(of: Classifier, layers: object) -> float:
        return loss(student, of, config("hidden-states", layers=layers))  # type: ignore[arg-type]

    assert apart(teacher.eval(), "all") == pytest.approx(apart(teacher, pairs))
    assert apart(teacher, "all") != pytest.approx(apart(teacher, ((0, 0), (1, 3))))
    # the same numbers are other layers of another teacher
    assert apart(deeper, "all") == pytest.approx(apart(deeper, ((0, 0), (1, 4))))


def test_attention_of_other_heads_is_refused(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'teacher')}")
    student = text_classifier(f"hf:{tiny_folder(tmp_path / 'student', num_attention_heads=4)}")
    with pytest.raises(UserError, match=r"has 4 heads and its teacher .* 2") as refused:
        Lesson(student, teacher, config("attention"))
    assert "relations" in refused.value.hint


def inputs(classifier: Classifier, repeat: int = 4) -> TextInputs:
    labels = np.arange(len(TEXTS) * repeat) % 2
    items = Items(list(TEXTS) * repeat, labels)
    return TextInputs(items, classifier.preparer())


def taught(
    folder: Path, student: Classifier, teacher: Classifier, settings: DistillConfig, **fitting: object
) -> FitResult:
    train = inputs(student)
    options = {"epochs": 2, "batch_size": 4, "precision": "fp32", "learning_rate": 1e-3, **fitting}
    return fit(student, FitConfig(**options), train, train, 3, folder, Teaching(teacher, settings, inputs(teacher)))  # type: ignore[arg-type]


def test_training_brings_the_hidden_states_nearer_and_leaves_no_trace(tmp_path: Path) -> None:
    student, teacher = pair(tmp_path / "models")
    before = loss(student, teacher, config("hidden-states")) - loss(student, teacher, config())
    taught(tmp_path / "out", student, teacher, config("hidden-states"), epochs=30, learning_rate=5e-3)
    after = loss(student, teacher, config("hidden-states")) - loss(student, teacher, config())
    assert after < 0.7 * before
    assert set(student.state_dict()) == set(load_classifier(tmp_path / "out").state_dict())
    assert not any(module._forward_hooks for module in [*student.modules(), *teacher.modules()])


def test_a_narrower_student_learns_through_a_projection_that_is_thrown_away(tmp_path: Path) -> None:
    teacher = text_classifier(f"hf:{tiny_folder(tmp_path / 'teacher', hidden_size=32)}")
    student = text_classifier(f"hf:{tiny_folder(tmp_path / 'student', hidden_size=16)}")
    names = set(student.state_dict())
    seen: set[str] = set()
    student.register_forward_pre_hook(lambda module, _: seen.update(name for name, _ in module.named_children()))
    taught(tmp_path / "out", student, teacher, config("hidden-states", "relations"))
    assert "projections" in seen
    assert set(student.state_dict()) == set(load_classifier(tmp_path / "out").state_dict()) == names


@pytest.mark.parametrize("features", [(), ("hidden-states", "relations", "attention")])
def test_accumulation_does_not_change_the_update_whatever_is_padded(tmp_path: Path, features: tuple[str, ...]) -> None:
    results = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        student, teacher = pair(tmp_path / f"models{batch_size}")
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        options = {"optimizer": "sgd", "learning_rate": 0.01, "epochs": 1, "warmup": 0.0}
        folder = tmp_path / f"out{batch_size}"
        taught(folder, student, teacher, config(*features), batch_size=batch_size, accumulation=accumulation, **options)
        results.append(student.state_dict())
    assert all(torch.allclose(one, results[1][name], atol=1e-5) for name, one in results[0].items())


def test_models_that_prepare_differently_and_models_without_layers_are_refused(tmp_path: Path) -> None:
    _, teacher = pair(tmp_path)
    cnn = text_classifier("builtin:textcnn")
    with pytest.raises(UserError, match="in different ways"):
        Lesson(cnn, teacher, config("relations"))
    with pytest.raises(UserError, match="no transformer layers"):
        Lesson(cnn, cnn, config("relations"))


def test_a_teacher_with_a_tokenizer_of_its_own_is_asked_about_the_same_augmented_texts(tmp_path: Path) -> None:
    _, teacher = pair(tmp_path / "models")
    student = text_classifier("builtin:textcnn")
    seen: list[torch.Tensor] = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    augment = AugmentConfig(delete=0.3, swap=0.3)
    taught(tmp_path / "out", student, teacher, config(), augment=augment)
    batches = 2 * -(-len(TEXTS) * 4 // 4)
    assert len(seen) == batches
    known = {tuple(row.tolist()) for row in torch.cat([pad(batch) for batch in seen])}
    plain = {tuple(row.tolist()) for row in pad(torch.from_numpy(teacher.preparer().prepare(TEXTS)))}
    assert len(known) > len(plain)  # other views in each epoch
    assert all(max(row) < teacher.network.model.config.vocab_size for row in known)


def pad(ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(ids, (0, 64 - ids.shape[1]))
