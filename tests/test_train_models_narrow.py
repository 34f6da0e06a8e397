"""A student with fewer heads and neurons computes what its teacher does, where what is gone did nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from helpers import image_inputs
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder, wanted

from serve.errors import UserError
from serve.runner import scores
from train.classifier import Classifier, ModelConfig, load_classifier, new_classifier, save_classifier
from train.distill.inside import look_inside
from train.draft import Wanted
from train.inputs import prepare_inputs
from train.models.importance import magnitude, most_important, taylor
from train.models.narrow import LayerParts, layer_parts
from train.sources import Items
from train.torch_runner import TorchRunner

HEADS, NEURONS = 4, 64
KEEP_HEADS, KEEP_NEURONS = 3, 40
DEAD_HEADS, DEAD_NEURONS = (2, 0), [*range(8), *range(48, 64)]  # one head by layer: others in each


def text_teacher(path: Path, family: str, layers: int = 2) -> Classifier:
    heads = {"distilbert": "n_heads", "gpt2": "n_head"}.get(family, "num_attention_heads")
    changes = {heads: HEADS, **({"n_inner": NEURONS} if family == "gpt2" else {})}
    return text_classifier(f"hf:{tiny_folder(path, family, layers=layers, **changes)}")


def parts_of(classifier: Classifier) -> list[LayerParts]:
    return layer_parts(classifier.network, classifier.spec.network, classifier.spec.model)


@torch.no_grad()
def silence(teacher: Classifier) -> None:
    """Make a head and some neurons of each layer do nothing, and be nothing."""
    for layer, head in zip(parts_of(teacher), DEAD_HEADS, strict=True):
        size, whole = layer.head_size, layer.heads * layer.head_size
        rows = torch.arange(head * size, (head + 1) * size)
        turned = hasattr(layer.after_heads, "nf")
        made = torch.cat([rows, rows + whole, rows + 2 * whole]) if turned else rows
        for module in (*layer.into_heads, layer.after_heads, layer.into_neurons, layer.after_neurons):
            after = module in (layer.after_heads, layer.after_neurons)
            dead = torch.tensor(DEAD_NEURONS) if "neuron" in _kind(layer, module) else (rows if after else made)
            weight: Any = module.weight.T if turned else module.weight  # [outputs, inputs]
            if after:
                weight[:, dead] = 0
            else:
                weight[dead] = 0
                module.bias[dead] = 0


def _kind(layer: LayerParts, module: torch.nn.Module) -> str:
    return "neurons" if module in (layer.into_neurons, layer.after_neurons) else "heads"


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_did_nothing_is_what_is_cut(tmp_path: Path, family: str, importance: str) -> None:
    teacher = text_teacher(tmp_path / "model", family)
    silence(teacher)
    options = {"heads": KEEP_HEADS, "ffn_width": KEEP_NEURONS, "importance": importance}
    student = text_classifier("teacher-layers:2", teacher=teacher, **options)
    expected = scores(TorchRunner(teacher), TEXTS)
    assert np.allclose(scores(TorchRunner(student), TEXTS), expected, atol=1e-6)
    for layer in parts_of(student):
        assert (layer.heads, layer.head_size, layer.neurons) == (KEEP_HEADS, 8, KEEP_NEURONS)
    lost = 2 * (8 * (4 * 32 + 3) + 24 * (2 * 32 + 1))
    assert teacher.params - student.params == lost
    save_classifier(student, tmp_path / "student")
    again = load_classifier(tmp_path / "student")
    assert (scores(TorchRunner(again), TEXTS) == scores(TorchRunner(student), TEXTS)).all()


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_image_transformers_too(tmp_path: Path, family: str) -> None:
    teacher = image_models.transformer(image_models.tiny_folder(tmp_path / "model", family))
    with torch.no_grad():
        for layer in parts_of(teacher):  # half of the heads and of the neurons
            layer.after_heads.weight[:, :16] = 0
            layer.after_neurons.weight[:, ::2] = 0
    images = image_inputs(image_models.IMAGES)
    found = taylor(teacher, parts_of(teacher), images)
    for of_layer in found:
        assert of_layer.heads[0] == 0 < of_layer.heads[1]
        assert (of_layer.neurons[::2] == 0).all()
        assert (of_layer.neurons[1::2] > 0).all()
    items = Items([_png(image) for image in image_models.IMAGES], np.array([0, 1, 2, 0, 1, 2]))
    asked = Wanted("image", teacher.spec.labels, 1, items, lambda _: images, teacher)
    config = ModelConfig(model="teacher-layers:2", options={"heads": 1, "ffn_width": 32}).checked("image")
    student = new_classifier(config, asked).eval()
    pixels = torch.from_numpy(image_models.IMAGES)
    with torch.no_grad():
        assert torch.allclose(student(pixels), teacher(pixels), atol=1e-5)


def _png(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def test_taylor_is_the_derivative_of_the_loss_by_each_gate(tmp_path: Path) -> None:
    """Against differences of the loss, of one item, with a head or a neuron a little louder or softer."""
    teacher = text_teacher(tmp_path, "bert").double()
    inputs = prepare_inputs(wanted().train.take(np.array([4])), teacher.preparer())
    found = taylor(teacher, parts_of(teacher), inputs)
    ids, label, step = torch.from_numpy(inputs.gather(np.array([0]))), torch.tensor(inputs.labels), 1e-2

    @torch.no_grad()
    def loss(module: Any, columns: slice, factor: float) -> float:
        before = module.weight.clone()
        module.weight[:, columns] *= factor
        value = torch.nn.functional.cross_entropy(teacher(ids), label).item()
        module.weight.copy_(before)
        return value

    for of_layer, layer in zip(found, parts_of(teacher), strict=True):
        for unit in range(HEADS):
            columns = slice(unit * 8, unit * 8 + 8)
            sides = [loss(layer.after_heads, columns, factor) for factor in (1 + step, 1 - step)]
            assert of_layer.heads[unit] == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=0.01, abs=1e-4)
        for unit in (0, 7, 63):
            sides = [loss(layer.after_neurons, slice(unit, unit + 1), factor) for factor in (1 + step, 1 - step)]
            assert of_layer.neurons[unit] == pytest.approx(abs(sides[0] - sides[1]) / (2 * step), rel=0.01, abs=1e-4)
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_it_does_not_depend_on_how_items_are_batched(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "roberta")
    preparer, items = teacher.preparer(), wanted().train
    together = taylor(teacher, parts_of(teacher), prepare_inputs(items, preparer))
    alone = [
        taylor(teacher, parts_of(teacher), prepare_inputs(items.take(np.array([row])), preparer))
        for row in range(len(TEXTS))
    ]
    for at, layer in enumerate(together):
        assert np.allclose(layer.heads, np.mean([one[at].heads for one in alone], axis=0), rtol=1e-3, atol=1e-7)
        assert np.allclose(layer.neurons, np.mean([one[at].neurons for one in alone], axis=0), rtol=1e-3, atol=1e-7)


def test_magnitude_is_the_length_of_a_units_weights(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert")
    layer, found = parts_of(teacher)[1], magnitude(parts_of(teacher))[1]
    into, after = layer.into_neurons, layer.after_neurons
    weights = torch.cat([into.weight[5], into.bias[5:6], after.weight[:, 5]])
    assert found.neurons[5] == pytest.approx(weights.norm().item(), rel=1e-6)
    assert found.heads.shape == (HEADS,)


def test_the_most_important_are_in_order_and_of_equals_the_first() -> None:
    assert most_important(np.array([0.0, 3.0, 1.0, 3.0, 1.0]), 3) == [1, 2, 3]


def test_a_narrow_student_can_be_a_teacher_of_a_narrower_one(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "gpt2", layers=3)
    student = text_classifier("teacher-layers:2", teacher=teacher, heads=3, take="first")
    smaller = text_classifier("teacher-layers:1", teacher=student, ffn_width=16, heads=2)
    layer = parts_of(smaller)[0]
    assert (layer.heads, layer.head_size, layer.neurons) == (2, 8, 16)
    assert scores(TorchRunner(smaller), TEXTS).shape == (6, 2)
    assert look_inside(smaller).heads == 2


def test_the_same_seed_cuts_the_same(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert")
    cut = [
        text_classifier("teacher-layers:1", teacher=teacher, ffn_width=8, importance_items=3).state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(cut[0][name], cut[1][name]) for name in cut[0])


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    teacher = text_teacher(tmp_path, "bert")
    for options, message, hint in (
        ({"ffn_width": 20}, "no multiple of 8", "ffn_width = 16 or 24"),
        ({"ffn_width": 72}, "the teacher .* has 64", "at most ffn_width = 64"),
        ({"heads": 5}, "the teacher .* has 4", "at most heads = 4"),
        ({"importance": "magnitude"}, "but all are", "options.heads"),
        ({"importance": "magnitude", "importance_items": 3, "heads": 1}, "looks at no items", "leave out"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            text_classifier("teacher-layers:1", teacher=teacher, **options)
        assert hint in refused.value.hint


def test_a_kind_whose_heads_are_not_known_is_refused(tmp_path: Path) -> None:
    teacher = image_models.transformer(image_models.tiny_folder(tmp_path, "swin"))
    with pytest.raises(UserError, match="is a swin model, of which heads"):
        layer_parts(teacher.network, teacher.spec.network, "hf:x")
