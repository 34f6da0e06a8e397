from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from text_models import TEXTS, text_classifier
from tiny_run import content, run_content

from serve.errors import UserError
from serve.predictor import Predictor
from serve.runner import scores
from train.classifier import load_classifier, save_classifier
from train.models.builtin import check
from train.models.textcnn import TextCNN, TextCNNOptions
from train.torch_runner import TorchRunner

CHINESE = Path(__file__).parent / "data" / "chinese.csv"


def test_it_has_kims_size() -> None:
    model = TextCNN(5000, 2, TextCNNOptions(embedding=300))
    counted = Counter(name.split(".")[0] for name, _ in model.named_parameters())
    assert counted == {"embedding": 1, "convolutions": 6, "head": 2}
    weights = 5000 * 300 + (3 + 4 + 5) * 300 * 100 + 300 + 300 * 2 + 2
    assert sum(parameter.numel() for parameter in model.parameters()) == weights


@pytest.mark.parametrize("widths", [(3, 4, 5), (1,), (2, 7)])
def test_padding_does_not_change_an_answer(widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = TextCNN(50, 3, TextCNNOptions(embedding=8, filters=6, widths=widths)).eval()
    for length in (1, 2, 3, 9):
        ids = torch.randint(1, 50, (2, length))
        short = model(ids, torch.ones_like(ids))
        more = torch.nn.functional.pad(ids, (0, 11))
        assert model(more, (more != 0).long()).detach() == pytest.approx(short.detach(), abs=1e-6)


def test_windows_are_those_of_a_plain_convolution() -> None:
    torch.manual_seed(0)
    model = TextCNN(50, 3, TextCNNOptions(embedding=8, filters=6, widths=(3,))).eval()
    ids = torch.randint(1, 50, (1, 7))
    vectors = torch.nn.functional.pad(model.embedding(ids)[0], (0, 0, 1, 1))  # [1 + 7 + 1, E]
    layer = model.convolutions[0]
    answers = torch.stack([(layer.weight * vectors[at : at + 3].T).sum((1, 2)) + layer.bias for at in range(7)])
    expected = model.head(answers.relu().amax(dim=0))
    assert model(ids, torch.ones_like(ids))[0].detach() == pytest.approx(expected.detach(), abs=1e-5)


def test_a_text_without_a_known_token_gets_the_bias_alone() -> None:
    model = TextCNN(50, 3, TextCNNOptions(embedding=8, filters=6)).eval()
    nothing = torch.zeros((2, 4), dtype=torch.int64)
    assert model(nothing, nothing).detach() == pytest.approx(model.head.bias.detach().expand(2, 3))


def test_neighbours_do_not_change_an_answer() -> None:
    runner = TorchRunner(text_classifier("builtin:textcnn", embedding=8, filters=5))
    items = [*TEXTS, "\u200b.\u200b".encode(), "🙂".encode()]
    together, alone = scores(runner, items), np.concatenate([scores(runner, [item]) for item in items])
    assert together == pytest.approx(alone, abs=1e-6)


def test_options_reach_the_network_and_its_tokenizer(tmp_path: Path) -> None:
    options: dict[str, Any] = {"embedding": 8, "filters": 5, "widths": [2, 3], "dropout": 0.2, "vocabulary": 100}
    classifier = text_classifier("builtin:textcnn", max_length=9, lowercase=False, **options)
    assert classifier.spec.preprocessing.max_length == 9
    assert [layer.kernel_size for layer in classifier.network.convolutions] == [(2,), (3,)]
    assert classifier.network.embedding.num_embeddings <= 100
    save_classifier(classifier, tmp_path)
    again = load_classifier(tmp_path)
    assert (scores(TorchRunner(again), TEXTS) == scores(TorchRunner(classifier), TEXTS)).all()


@pytest.mark.parametrize(
    "options", [{"widths": []}, {"widths": [0]}, {"dropout": 1}, {"vocabulary": 3}, {"width": [3]}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="model 'builtin:textcnn' does not take option") as refused:
        check("textcnn", options, "text")
    assert "width" in refused.value.hint


def test_a_family_is_for_one_task() -> None:
    with pytest.raises(UserError, match="'builtin:textcnn' classifies texts, but the recipe's task is image"):
        check("textcnn", {}, "image")
    with pytest.raises(
        UserError, match="'builtin:resnet8' classifies images, but the recipe's task is text"
    ) as refused:
        check("resnet8", {}, "text")
    assert "builtin:textcnn" in refused.value.hint
    assert 'write task = "image" at the top of the recipe' in refused.value.hint


def test_it_learns_chinese_from_a_file_to_served_answers(tmp_path: Path) -> None:
    recipe = content()
    fit = {"epochs": 25, "batch_size": 8, "learning_rate": 3e-3}
    network = {"embedding": 32, "filters": 16, "vocabulary": 500}
    recipe |= {
        "task": "text",
        "data": {"source": f"csv:{CHINESE}", "calibration": 8, "validation": 8, "test": 12},
        "teacher": {"model": "builtin:textcnn", "options": network, "fit": fit},
        "students": [],
    }
    ran = run_content(recipe, tmp_path / "run", memory=False)
    by_id = {variant.id: variant for variant in ran.report.variants}
    assert by_id["teacher-torch"].accuracy >= 0.75
    for precision in ("fp32", "fp16", "int8-dynamic", "int8-static"):
        assert by_id[f"teacher-{precision}"].errors <= by_id["teacher-torch"].errors + 1
    predictor = Predictor.load(tmp_path / "run" / "packages" / "teacher-int8-dynamic")
    answers = scores(predictor, ["非常好看，很喜欢，推荐".encode(), "太差了，很失望，难吃".encode()])
    assert [predictor.labels[row] for row in answers.argmax(axis=1)] == ["正面", "负面"]
