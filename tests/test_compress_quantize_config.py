"""[quantize]: what contradicts itself is refused, and defaults make nothing again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compress.quantize.config import Mixed, Quantize


def config(*precisions: str, **settings: Any) -> Quantize:
    return Quantize.model_validate({"precisions": ["fp32", *precisions], **settings})


@pytest.mark.parametrize(
    ("precisions", "settings", "said"),
    [
        (["int8-dynamic"], {"calibration": "entropy"}, "calibration is a setting of 'int8-static', 'int8-mixed'"),
        (["fp16"], {"embeddings": "row"}, "precisions names none of them"),
        (["int8-static"], {"mixed": {"max_nodes": 2}}, "mixed is a setting of 'int8-mixed'"),
        (["int8-static"], {"percentile": 99.0}, "percentile is a setting of calibration = 'percentile'"),
        (["int8-static"], {"symmetric_weights": False}, "needs per_channel = false"),
        (["int8-static"], {"form": "operator", "provider": "tensorrt"}, "runs on the CPU alone"),
        (["int8-static"], {"smoothing": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_would_be_ignored_or_cannot_be_are_refused(
    precisions: list[str], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        config(*precisions, **settings)


def test_what_was_written_out_can_be_read_again() -> None:
    """A resolved recipe names every setting, those at their defaults too."""
    plain = config("int8-dynamic")
    assert Quantize.model_validate(plain.model_dump(mode="json")) == plain


def test_defaults_decide_nothing() -> None:
    every = config("fp16", "int8-dynamic", "int8-static", "int8-mixed", "int8-weights", "int4-weights")
    assert all(every.deciding(precision) == {} for precision in every.precisions)


def test_a_setting_decides_only_what_heeds_it() -> None:
    changed = config("int8-dynamic", "int8-static", "int8-mixed", calibration="entropy", mixed={"max_nodes": 2})
    assert changed.deciding("int8-dynamic") == {}
    assert changed.deciding("int8-static") == {"calibration": "entropy"}
    mixed = Mixed(max_nodes=2).model_dump(mode="json")
    assert changed.deciding("int8-mixed") == {"calibration": "entropy", "mixed": mixed}


def test_the_weights_that_get_8_bits_among_those_of_4_have_channels_too() -> None:
    assert config("int4-weights", per_channel=False).deciding("int4-weights") == {"per_channel": False}


def test_what_stays_in_floating_point_by_request_is_not_missed() -> None:
    assert config("int8-static").least_changed("int8-static") == 0.9
    assert config("int8-static", exclude=["a"]).least_changed("int8-static") == 0.0


def test_providers_other_than_the_cpu_get_the_form_that_they_can_read() -> None:
    elsewhere = config("int8-static", "int8-dynamic", provider="openvino")
    assert not elsewhere.operators
    assert elsewhere.deciding("int8-static") == {"form": "qdq"}
    assert elsewhere.deciding("int8-dynamic") == {}
    assert config("int8-static").operators
