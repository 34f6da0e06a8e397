"""What is trained, and how fast, of networks of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import image_classifier, image_inputs
from text_models import FAMILIES, text_classifier, tiny_folder

from serve.errors import UserError
from train.classifier import Classifier
from train.fit import fit
from train.fit_config import FitConfig
from train.following import Following
from train.layers import freeze, hold_still, levels, never_thawed, rates
from train.optimizers import new_optimizer

GENERATOR = np.random.default_rng(0)
IMAGES, TARGETS = GENERATOR.integers(0, 256, (32, 8, 8, 1), dtype=np.uint8), GENERATOR.integers(0, 4, 32)
TRAIN, VALIDATION = image_inputs(IMAGES, TARGETS), image_inputs(IMAGES[:16], TARGETS[:16])
# Linear layers 2 (the input's), 5 and 8 (the head) of the stack `layers`.
MLP = "builtin:mlp-12x10"


def images(model: str = MLP) -> Classifier:
    return image_classifier(IMAGES, tuple("abcd"), model=model)


def changed(model: Classifier, before: dict[str, torch.Tensor]) -> set[str]:
    """The parameters and buffers of the network that are not as they were."""
    return {name for name, value in model.network.state_dict().items() if not torch.equal(value, before[name])}


def copied(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_levels_of_a_transformer_are_embeddings_layers_and_head(tmp_path: Path, family: str) -> None:
    found = levels(text_classifier(f"hf:{tiny_folder(tmp_path, family, layers=3)}"))
    assert set(found.values()) == {0, 1, 2, 3, 4}
    for name, level in found.items():
        assert (level == 0) == (("embeddings" in name) or (".wte." in name) or (".wpe." in name)), name
    assert {level for name, level in found.items() if "classifier" in name or "score" in name} == {4}


def test_the_levels_of_a_plain_stack_are_its_layers() -> None:
    found = levels(images())
    assert [found[f"layers.{at}.weight"] for at in (2, 5, 8)] == [1, 2, 3]


def outline(network: torch.nn.Module) -> list[str]:
    """For each level of a network the parts that it has, in a word or two each."""
    model = images()
    model.network = network
    parts: dict[int, list[str]] = {}
    for name, level in levels(model).items():
        parts.setdefault(level, []).append(".".join(name.split(".")[:3]))
    return [" ".join(dict.fromkeys(parts[level])) for level in sorted(parts)]


def test_layers_of_torchvision_have_a_name_before_their_number() -> None:
    with torch.device("meta"):
        vit = torchvision.models.VisionTransformer(
            8, 4, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
        )
    *below, head = outline(vit)
    assert [level.count(f"encoder.layers.encoder_layer_{at}") for at, level in enumerate(below[1:])] == [1, 1, 1]
    assert (len(below), head) == (4, "encoder.ln.weight encoder.ln.bias heads.head.weight heads.head.bias")
    assert "conv_proj" in below[0]


def test_the_blocks_of_all_stages_are_layers_also_where_the_last_stage_is_not_the_largest() -> None:
    """ResNet-101 and 152 have most of their weights in the third; what follows it is not the head."""
    with torch.device("meta"):
        resnet = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 8, 2])
    *below, head = outline(resnet)
    assert head == "fc.weight fc.bias"
    assert [level.split(".conv1")[0] for level in below[1:]] == [
        *("layer1.0", "layer2.0", *(f"layer3.{at}" for at in range(8)), "layer4.0", "layer4.1")
    ]


def test_what_stands_between_two_layers_goes_with_the_one_before_it() -> None:
    with torch.device("meta"):
        dense = torchvision.models.DenseNet(4, (2, 2), num_init_features=8, num_classes=4)
    below, first, second, head = outline(dense)
    assert ("conv0" in below, "denseblock1" in first, "transition1" in first, "denseblock2" in second) == (True,) * 4
    assert "norm5" in head
    assert "classifier" in head


def test_numbers_that_say_nothing_of_an_order_are_none() -> None:
    with torch.device("meta"):
        inception = torchvision.models.Inception3(init_weights=False)
    with pytest.raises(UserError, match="no numbered layers"):
        outline(inception)


def test_the_rate_falls_by_the_same_factor_with_each_layer_away_from_the_head() -> None:
    config = FitConfig(layer_decay=0.5, learning_rate=0.8, weight_decay=0.1)
    model = images()
    groups = new_optimizer(config, model, rates(config, model)).param_groups
    found = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    layers = model.network.layers
    for at, rate in ((2, 0.2), (5, 0.4), (8, 0.8)):
        assert found[id(layers[at].weight)] == (pytest.approx(rate), 0.1)
        assert found[id(layers[at].bias)] == (pytest.approx(rate), 0.0)
    assert rates(FitConfig(), model) == {}


def test_of_a_head_alone_nothing_else_moves_not_even_a_batch_norm(tmp_path: Path) -> None:
    model = images("builtin:cnn-4x6")
    before = copied(model)
    names = set(model.network.state_dict())
    fit(model, FitConfig(epochs=2, batch_size=16, train_layers=("head",)), TRAIN, VALIDATION, 5, tmp_path)
    moved = changed(model, before)
    assert moved == {name for name in names if name.startswith("head.")}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_head_is_the_topmost_level() -> None:
    model = images()
    freeze(FitConfig(train_layers="head"), model)
    trained = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert trained == {"layers.8.weight", "layers.8.bias"}


def test_patterns_name_parameters_and_modules() -> None:
    model = images()
    freeze(FitConfig(train_layers=("layers.5", "*.8.bias")), model)
    trained = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert trained == {"layers.5.weight", "layers.5.bias", "layers.8.bias"}
    with pytest.raises(UserError, match=r"nothing in the network is called 'layer\.5'") as refused:
        freeze(FitConfig(train_layers=("layers.8", "layer.5")), model)
    assert "did you mean 'layers.5'" in refused.value.hint


def test_batch_norms_that_are_trained_still_follow_their_batches() -> None:
    model = images("builtin:cnn-4").train()
    hold_still(model)
    assert all(module.training for module in model.modules())


def test_layers_thaw_from_the_top_one_more_each_time(tmp_path: Path) -> None:
    model = images()
    seen: list[tuple[bool, ...]] = []
    model.network.layers[2].register_forward_pre_hook(
        lambda module, _: (
            seen.append(tuple(model.network.layers[at].weight.requires_grad for at in (2, 5, 8)))
            if module.training
            else None
        )
    )
    fit(model, FitConfig(epochs=5, batch_size=16, unfreeze=2), TRAIN, VALIDATION, 5, tmp_path)
    head, two, three = (False, False, True), (False, True, True), (True, True, True)
    assert seen == [head] * 4 + [two] * 4 + [three] * 2


@pytest.mark.parametrize(("epochs", "late"), [(4, True), (5, False)])
def test_layers_that_would_thaw_after_the_last_epoch_are_told(tmp_path: Path, epochs: int, late: bool) -> None:
    model, told = images(), list[str]()
    before = copied(model)
    config = FitConfig(epochs=epochs, batch_size=16, unfreeze=2, keep="last")
    fit(model, config, TRAIN, VALIDATION, 5, tmp_path, following=Following(say=told.append))
    assert ("layers.2.weight" in changed(model, before)) is not late
    found = [text for text in told if text.startswith("fit.unfreeze = 2 comes to the upper 2 of 3 layers")]
    assert len(found) == late
    assert all(
        text.endswith("in 4 epochs: those below are never trained; 5 epochs or more train all") for text in found
    )


def test_the_layers_of_a_transformer_thaw_before_its_embeddings(tmp_path: Path) -> None:
    model = text_classifier(f"hf:{tiny_folder(tmp_path, 'bert', layers=3)}")
    told = {epochs: never_thawed(FitConfig(epochs=epochs, unfreeze=1), model) for epochs in (4, 5)}
    assert "comes to the upper 4 of 5 layers" in (told[4] or "")
    assert told[5] is None
    assert never_thawed(FitConfig(epochs=2), model) is None


@pytest.mark.parametrize(("patience", "early"), [(3, True), (4, False)])
def test_a_patience_that_may_end_before_all_layers_thaw_is_told(tmp_path: Path, patience: int, early: bool) -> None:
    model, told, thawed = images(), list[str](), list[bool]()
    lowest = model.network.layers[2]
    lowest.register_forward_pre_hook(lambda *_: thawed.append(lowest.training and lowest.weight.requires_grad))
    # an epoch must gain more than there is to gain, so training ends as soon as it can
    config = FitConfig(epochs=8, batch_size=16, unfreeze=2, patience=patience, threshold=0.99)
    result = fit(model, config, TRAIN, VALIDATION, 5, tmp_path, following=Following(say=told.append))
    assert len(result.epochs) == patience + 1
    found = [text for text in told if text.startswith("fit.patience = 3 may end the training after 4 epochs")]
    assert len(found) == early
    assert all(text.endswith("a patience of 4 or more lets it come to all") for text in found)
    assert any(thawed) is not early


def test_a_network_without_numbered_layers_has_no_order() -> None:
    model = images()
    model.network = torch.nn.Linear(3, 4)
    with pytest.raises(UserError, match="no numbered layers"):
        levels(model)
