"""What processors and providers need of int8, with faked processors and provider lists."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import onnxruntime as ort
import pytest

from compress.quantize import providers
from compress.quantize.config import Quantize
from compress.quantize.precisions import convert
from compress.quantize.providers import check_provider, could_saturate, reduced_range, runnable
from compress.recipe_file import parse_recipe
from compress.variants import packaged_variants
from serve.errors import UserError
from serve.predictor import OUTPUT

ITEMS = graphs.ids()
FP32 = graphs.transformer().SerializeToString()


def static(**settings: Any) -> Quantize:
    return Quantize.model_validate({"precisions": ["fp32", "int8-static"], **settings})


@pytest.mark.parametrize(
    ("machine", "flags", "reduced", "why"),
    [
        ("x86_64", ["avx2", "avx512_vnni"], False, "has avx512_vnni"),
        ("x86_64", ["avx2", "avx_vnni"], False, "has avx_vnni"),
        ("x86_64", ["avx2", "avx512f"], True, "has no VNNI"),
        ("aarch64", [], False, "aarch64 adds int8 products in 32 bits"),
    ],
)
def test_seven_bits_where_the_processor_would_overflow(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: list[str], reduced: bool, why: str
) -> None:
    monkeypatch.setattr(providers, "hardware", lambda: {"cpu_flags": flags})
    monkeypatch.setattr(providers.platform, "machine", lambda: machine)
    found = reduced_range(static())
    assert found[0] is reduced
    assert why in found[1]
    assert reduced_range(static(reduce_range=True)) == (True, "as the recipe says")


def test_the_choice_is_said_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "hardware", lambda: {"cpu_flags": ["avx2"]})
    monkeypatch.setattr(providers.platform, "machine", lambda: "x86_64")
    said: list[str] = []
    made = convert(FP32, "int8-static", ITEMS, static(), said.append)
    assert made.notes == said
    assert said[0].startswith("weights of 7 bits: this processor has no VNNI")


@pytest.mark.parametrize("precision", ["int8-static", "int8-dynamic"])
def test_seven_bits_cannot_overflow_and_answer_alike(precision: Any) -> None:
    """What a processor with VNNI can show of one without: its sums stay within 16 bits, and the answers agree."""
    whole, reduced = (
        convert(FP32, precision, ITEMS, Quantize(precisions=("fp32", precision), reduce_range=flag)).model
        for flag in (False, True)
    )
    assert could_saturate(whole) > 0
    assert could_saturate(reduced) == 0
    answers = [graphs.scores(model, ITEMS, batch=1) for model in (whole, reduced)]
    assert np.abs(answers[0] - answers[1]).mean() < 0.05


def test_the_kernels_for_unsigned_weights_give_the_same_sums() -> None:
    """session.x64quantprecision takes uint8 by uint8, the exact path of processors without VNNI."""
    model = convert(FP32, "int8-static", ITEMS, static(form="qdq")).model
    answers = []
    for value in ("0", "1"):
        options = ort.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", value)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers.append(session.run([OUTPUT], {"ids": ITEMS.ids})[0])
    assert answers[1] == pytest.approx(answers[0], abs=1e-4)


def test_cuda_gets_fp16_in_the_stead_of_int8() -> None:
    made, why = runnable(("fp32", "int8-dynamic", "int8-static", "int8-weights"), "cuda")
    assert made == ("fp32", "int8-weights", "fp16")
    assert why == (
        "CUDAExecutionProvider has no int8 kernels, so fp16 is made in the stead of int8-dynamic, int8-static"
    )
    assert runnable(("fp32", "fp16"), "cuda") == (("fp32", "fp16"), "")
    for provider in ("cpu", "tensorrt", "openvino"):
        assert runnable(("fp32", "int8-static"), provider) == (("fp32", "int8-static"), "")  # type: ignore[arg-type]


def test_a_provider_that_is_not_installed_is_refused() -> None:
    config = Quantize(precisions=("fp32", "int8-static"), provider="cuda")
    said = check_provider(config, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert said.startswith("CUDAExecutionProvider has no int8 kernels, so fp16 is made in the stead of int8-static;")
    with pytest.raises(UserError, match="has no CUDAExecutionProvider"):
        check_provider(config, ["CPUExecutionProvider"])
    assert check_provider(static(), []) == ""


def test_a_recipe_for_cuda_makes_fp16_packages() -> None:
    content = {
        "name": "gpu",
        "data": {"source": "digits"},
        "teacher": {"model": "builtin:cnn-8"},
        "quantize": {"precisions": ["fp32", "int8-static"], "provider": "cuda"},
        "accept": {"max_drop_points": 5.0},
    }
    assert [each.id for each in packaged_variants(parse_recipe(content, "test"))] == ["teacher-fp32", "teacher-fp16"]
