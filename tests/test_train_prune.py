"""A student without the embeddings that its data never use answers as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from text_models import FAMILIES, text_classifier, tiny_folder

from serve.errors import UserError
from serve.runner import scores
from train.classifier import load_classifier, save_classifier
from train.prune import PruneConfig, cut_otherwise, prune
from train.torch_runner import TorchRunner

SEEN = ["a good film", "this movie is not boring"]
ALIKE = [b"a good movie", b"this is not a boring film"]  # of the same words


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_left_answers_as_before(tmp_path: Path, family: str) -> None:
    whole = text_classifier(f"hf:{tiny_folder(tmp_path / 'model', family)}")
    pruned = prune(whole, PruneConfig(vocabulary="seen"), SEEN)
    assert pruned.params < whole.params
    assert cut_otherwise(whole, pruned, SEEN) == 0
    assert cut_otherwise(whole, pruned, ["a good film", "the best"]) == 1
    assert np.allclose(scores(TorchRunner(pruned), ALIKE), scores(TorchRunner(whole), ALIKE), atol=1e-6)
    assert scores(TorchRunner(pruned), [b"best of all, \xe7\x94\xb5", b"?"]).shape == (2, 2)  # unseen, and unknown
    save_classifier(pruned, tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    assert torch.equal(
        torch.tensor(scores(TorchRunner(again), ALIKE)), torch.tensor(scores(TorchRunner(pruned), ALIKE))
    )


def test_a_model_without_a_pretrained_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="'builtin:textcnn' is none"):
        prune(text_classifier("builtin:textcnn"), PruneConfig(vocabulary="seen"), SEEN)
