from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import colored, tiny_package

from compress.measure.predictions import predict, read_scores
from serve.errors import UserError
from serve.predictor import Predictor
from serve.runner import scores
from train.sources import Items

# More than one batch, the last of them shorter.
CONTENT = [colored(at, 255 - at, at // 2) for at in range(150)]
ITEMS = Items(CONTENT, np.arange(150) % 4)


def test_scores_are_kept_as_the_runner_gave_them(tmp_path: Path) -> None:
    predictor = Predictor(tiny_package(tmp_path / "package"))
    result = predict(predictor, ITEMS, tmp_path / "out.parquet")
    expected = scores(predictor, CONTENT)
    assert (read_scores(tmp_path / "out.parquet") == expected).all()
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["item"] == list(range(150))
    assert table["label"] == ITEMS.labels.tolist()
    assert table["predicted"] == expected.argmax(axis=1).tolist()
    assert (result.n, result.errors) == (150, int((expected.argmax(axis=1) != ITEMS.labels).sum()))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing"])
def test_a_file_that_is_no_predictions_is_a_user_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "out.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="no predictions in"):
        read_scores(file)
