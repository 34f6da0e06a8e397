from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded, image_classifier
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import models

from serve.errors import UserError
from serve.images import prepare_image
from serve.manifest import ImagePreprocessing
from train.classifier import Classifier, load_classifier, save_classifier
from train.models import origin
from train.models.torchvision_zoo import check, preprocessing_of

LABELS = tuple("abc")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def new(name: str, labels: tuple[str, ...] = LABELS, **options: Any) -> Classifier:
    return image_classifier(IMAGES, labels, model=f"torchvision:{name}", image_size=64, **options).eval()


def refusal(name: str, **options: Any) -> UserError:
    with pytest.raises(UserError) as refused:
        check(name, options, "image")
    assert refused.value.hint
    return refused.value


@torch.no_grad()
def logits(classifier: Classifier) -> torch.Tensor:
    result: torch.Tensor = classifier.eval()(torch.from_numpy(IMAGES))
    return result


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes, hard edges and fine noise, as a camera gives them."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(smooth).astype(int) + rng.integers(-20, 21, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 5, 128)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_b1", "swin_v2_t"])
@pytest.mark.parametrize("size", [(500, 333), (301, 407), (224, 900), (97, 61)])
def test_images_are_prepared_as_torchvision_does(name: str, size: tuple[int, int]) -> None:
    preset = models.get_model_weights(name).DEFAULT.transforms()
    file = encoded(photograph(*size), "JPEG", quality=90)
    theirs = preset(Image.open(io.BytesIO(file)))  # normalised, so undo that
    mean, std = torch.tensor(preset.mean).view(3, 1, 1), torch.tensor(preset.std).view(3, 1, 1)
    pixels = ((theirs * std + mean) * 255).round().permute(1, 2, 0).numpy()
    ours = prepare_image(file, preprocessing_of(preset, name))
    assert ours.shape == pixels.shape
    assert np.abs(ours.astype(int) - pixels).max() <= 1


def test_what_a_network_sees_is_what_torchvision_would_show_it() -> None:
    classifier = new("resnet18")
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    spec = classifier.spec.preprocessing
    assert isinstance(spec, ImagePreprocessing)
    assert (spec.resize_to, spec.size, spec.interpolation) == (73, (64, 64), "bilinear")  # 256/224 of 64
    pixels = torch.from_numpy(IMAGES)
    expected = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(
        preset.std
    ).view(3, 1, 1)
    assert torch.allclose(classifier.front(pixels)[0], expected, atol=1e-5)


# One of each way of building: extra heads, loading of its own, sizes by argument, widths by tensors
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "googlenet",
        "mnasnet0_5",
        "squeezenet1_1",
        "shufflenet_v2_x0_5",
        "regnet_y_400mf",
    ],
)
def test_a_saved_model_is_the_same_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    classifier = new(name)
    assert isinstance(classifier.train()(torch.from_numpy(IMAGES)), torch.Tensor)
    save_classifier(classifier, tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.spec == classifier.spec
    assert loaded.spec.network.source == "torchvision"
    assert torch.equal(logits(loaded), logits(classifier))


def test_the_same_seed_gives_the_same_weights() -> None:
    assert torch.equal(logits(new("mobilenet_v3_small")), logits(new("mobilenet_v3_small")))


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18", "quantized_resnet18"])
def test_models_of_other_tasks_are_refused_for_what_they_are(name: str) -> None:
    kind = {"f": "detection", "d": "segmentation", "r": "video", "q": "quantization"}[name[0]]
    assert kind in refusal(name).message


def test_unknown_names_and_options_are_refused() -> None:
    assert "resnet50" in refusal("resnet5O").hint
    assert "weights" in refusal("resnet18", weight="DEFAULT").hint
    assert "has no dropout" in refusal("resnet18", dropout=0.2).message
    assert "has no dropout" in refusal("convnext_tiny", dropout=0.1).message  # it would take it and ignore it
    assert "is no size" in refusal("resnet18", image_size="big").message
    assert "squares" in refusal("vit_b_16", image_size=[64, 32]).message
    assert "divisible" in refusal("vit_b_16", image_size=40).message
    with pytest.raises(UserError, match="classifies images"):
        check("resnet18", {}, "text")


def test_dropout_is_set_where_there_is_some() -> None:
    found = [part.p for part in new("mobilenet_v3_small", dropout=0.45).modules() if isinstance(part, torch.nn.Dropout)]
    assert found == [0.45]


def momenta(classifier: Classifier) -> set[float]:
    return {part.momentum for part in classifier.modules() if isinstance(part, torch.nn.BatchNorm2d)}


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
def test_without_weights_averages_follow_the_batches_of_a_small_data_set(name: str, tmp_path: Path) -> None:
    classifier = new(name)
    assert momenta(classifier) == {0.1}
    save_classifier(classifier, tmp_path)
    assert momenta(load_classifier(tmp_path)) == {0.1}


def test_an_image_size_that_is_too_small_is_refused_before_training() -> None:
    with pytest.raises(UserError, match="does not take images of 8x8") as refused:
        image_classifier(IMAGES, LABELS, model="torchvision:alexnet", image_size=8)
    assert "image_size" in refused.value.hint


def test_a_grey_data_set_is_shown_in_color() -> None:
    grey = image_classifier(IMAGES[..., :1], LABELS, model="torchvision:squeezenet1_1", image_size=64)
    assert grey.spec.preprocessing.color == "RGB"  # type: ignore[union-attr]


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A safetensors file of a model with 3 classes."""
    torch.manual_seed(77)
    model = models.get_model("mobilenet_v3_small", num_classes=3)
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    return file


def test_weights_of_as_many_labels_are_taken_whole(weights: Path) -> None:
    state = load_file(weights)
    for name, tensor in new("mobilenet_v3_small", weights=str(weights)).network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_with_weights_averages_keep_the_models_own_momentum(weights: Path) -> None:
    assert momenta(new("mobilenet_v3_small", weights=str(weights))) == {0.01}


def test_a_head_for_other_labels_is_left_out(weights: Path) -> None:
    classifier = new("mobilenet_v3_small", labels=tuple("abcde"), weights=str(weights))
    state, fresh = load_file(weights), new("mobilenet_v3_small", labels=tuple("abcde")).network.state_dict()
    for name, tensor in classifier.network.state_dict().items():
        expected = fresh[name] if name.startswith("classifier.3.") else state[name]
        assert torch.equal(tensor, expected), name
    assert classifier.untrained is not None
    assert "another number of labels" in classifier.untrained


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("features.0.0.weight"), "lacks the tensor 'features.0.0.weight'"),
        (lambda state: state.update(stranger=torch.zeros(1)), "has a tensor 'stranger'"),
        (
            lambda state: state.update({"features.0.0.weight": torch.zeros(16, 1, 3, 3)}),
            "has the tensor 'features.0.0.weight' as [16, 1, 3, 3], the model as [16, 3, 3, 3]",
        ),
    ],
)
def test_any_other_difference_is_an_error_that_names_the_tensor(weights: Path, change: Any, said: str) -> None:
    state = load_file(weights)
    change(state)
    save_file(state, weights)
    with pytest.raises(UserError) as refused:
        new("mobilenet_v3_small", weights=str(weights))
    assert said in refused.value.message


def test_a_pickle_is_refused_with_the_lines_that_convert_it(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(models.get_model("squeezenet1_1", num_classes=3).state_dict(), file)
    refused = refusal("squeezenet1_1", weights=str(file))
    assert "pickle" in refused.message
    code = refused.hint.partition(": ")[2]
    exec(code)
    new("squeezenet1_1", weights=str(tmp_path / "weights.safetensors"))


def test_a_file_that_is_not_there_or_broken_is_refused(tmp_path: Path) -> None:
    assert "no weights at" in refusal("resnet18", weights=str(tmp_path / "none.safetensors")).message
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match="cannot read"):
        new("resnet18", weights=str(tmp_path / "broken.safetensors"))


def test_named_weights_are_checked_early_and_told_when_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check("resnet18", {"weights": "IMAGENET1K_V1"}, "image")
    assert "IMAGENET1K_V1" in refusal("resnet18", weights="IMAGENET1K_V7").hint
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(UserError, match=r"cannot be fetched from https://download\.pytorch\.org") as refused:
        new("resnet18", weights="IMAGENET1K_V1")
    assert f"put it at {tmp_path}" in refused.value.hint


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_named_weights_bring_their_own_preprocessing_and_leave_out_their_head(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a cache in which the file lies, as after a download."""
    entry = models.MobileNet_V3_Large_Weights.IMAGENET1K_V2
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    state = models.get_model("mobilenet_v3_large").state_dict()
    torch.save(state, cache / Path(entry.url).name)
    classifier = image_classifier(
        IMAGES, LABELS, model="torchvision:mobilenet_v3_large", weights="IMAGENET1K_V2", image_size=64
    )
    assert classifier.spec.preprocessing.resize_to == round(232 / 224 * 64)  # type: ignore[union-attr]
    assert torch.equal(classifier.network.state_dict()["features.0.0.weight"], state["features.0.0.weight"])
    assert "1000 other labels" in str(classifier.untrained)


def test_what_a_model_starts_from_is_told_apart_by_the_content_of_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    found = []
    for value in (0.0, 1.0, 0.0):
        save_file({"weight": torch.full((1,), value)}, file)
        found.append(origin("torchvision:resnet18", {"weights": str(file), "image_size": 64}))
    assert found[0] == found[2] != found[1]
    assert origin("torchvision:resnet18", {}) == origin("torchvision:vgg11", {"weights": "DEFAULT"}) != found[0]
    assert origin("builtin:resnet8", {}) is None


def test_a_head_that_is_a_convolution_keeps_its_order_or_is_refused(tmp_path: Path) -> None:
    save_classifier(new("squeezenet1_1"), tmp_path / "teacher")
    model = f"run:{tmp_path}"
    assert image_classifier(IMAGES, LABELS, model=model).untrained is None
    with pytest.raises(UserError, match="has its labels in another order"):
        image_classifier(IMAGES, ("c", "a", "b"), model=model)
