"""The operator form: the same levels as QDQ, with a product, its scales and its bias in one node."""

from __future__ import annotations

import graphs
import numpy as np
import pytest

from compress.quantize.config import Quantize
from compress.quantize.inspect import check_changed
from compress.quantize.static import Static

ITEMS = graphs.ids()
MODEL = graphs.transformer()


def static(form: str, **settings: object) -> bytes:
    config = Quantize.model_validate({"precisions": ["fp32", "int8-static"], "form": form, "smoothing": 0, **settings})
    return Static(MODEL, ITEMS, config, False).without(())


@pytest.mark.parametrize("settings", [{}, {"per_channel": False}, {"symmetric_activations": True}])
def test_both_forms_give_the_same_answers(settings: dict[str, object]) -> None:
    answers = [graphs.logits(static(form, **settings), ITEMS) for form in ("qdq", "operator")]
    assert answers[1] == pytest.approx(answers[0], abs=1e-4)
    assert np.abs(answers[1] - graphs.logits(MODEL, ITEMS)).max() < 0.3


def test_products_take_their_bias_along() -> None:
    found = graphs.operators(static("operator"))
    assert found.count("MatMulIntegerToFloat") == 4  # query, value, up, down
    assert found.count("Add") == graphs.operators(MODEL).count("Add") - 3
    assert found.count("MatMul") == 2  # those of attention
    check_changed(static("operator"), "int8-static")


def test_it_does_not_depend_on_the_batch() -> None:
    model = static("operator")
    assert graphs.logits(model, ITEMS, batch=1) == pytest.approx(graphs.logits(model, ITEMS, batch=96), abs=1e-5)


def test_auto_is_the_operator_form_where_there_is_attention() -> None:
    assert static("auto") == static("operator")


def test_weights_with_a_zero_point() -> None:
    asymmetric, plain = (static("operator", symmetric_weights=flag, per_channel=False) for flag in (False, True))
    assert asymmetric != plain
    assert graphs.logits(asymmetric, ITEMS) == pytest.approx(graphs.logits(plain, ITEMS), abs=0.5)
