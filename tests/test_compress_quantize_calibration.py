"""Ranges on calibration items: all of them are read, in memory that does not grow with their number."""

from __future__ import annotations

import tracemalloc

import graphs
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.quantize import calibration
from compress.quantize.calibration import calibrate, watch
from compress.quantize.config import Calibration, Quantize
from serve.errors import LimbeckError, UserError

MODEL = graphs.transformer(outlier=20)
TENSORS = ("normed", "inner", "active")


def values(name: str, items: graphs.Ids) -> np.ndarray:
    found: list[np.ndarray] = []
    watch(MODEL, [name], items, lambda batch: found.append(batch[name]))
    return np.concatenate(found)


def config(method: Calibration, **more: float) -> Quantize:
    return Quantize.model_validate({"precisions": ["fp32", "int8-static"], "calibration": method, **more})


def test_min_max_is_what_the_activations_were() -> None:
    items = graphs.ids()
    found = calibrate(MODEL, TENSORS, items, config("min-max"))
    for name in TENSORS:
        seen = values(name, items)
        assert found[name] == (pytest.approx(seen.min(), rel=1e-6), pytest.approx(seen.max(), rel=1e-6))


@pytest.mark.parametrize("chosen", [config("percentile", percentile=99.0), config("entropy")])
def test_other_methods_clip_within_what_was_seen(chosen: Quantize) -> None:
    items = graphs.ids(256)
    wide, found = (calibrate(MODEL, TENSORS, items, settings) for settings in (config("min-max"), chosen))
    for name in TENSORS:
        assert wide[name][0] <= found[name][0] < found[name][1] <= wide[name][1]
    spans = [float(ranges["inner"][1] - ranges["inner"][0]) for ranges in (found, wide)]
    assert spans[0] < spans[1]


def test_a_percentile_covers_that_share() -> None:
    items = graphs.ids(256)
    low, high = calibrate(MODEL, ["inner"], items, config("percentile", percentile=98.0))["inner"]
    seen = values("inner", items)
    assert ((seen >= low) & (seen <= high)).mean() == pytest.approx(0.98, abs=0.003)


@pytest.mark.parametrize("method", ["min-max", "percentile", "entropy"])
def test_memory_does_not_grow_with_the_number_of_items(method: Calibration) -> None:
    """Tools that keep what each batch gave took hundreds of GB: onnxruntime#10503."""
    peaks = []
    for count in (64, 64, 1024):  # once to warm up
        items = graphs.ids(count)
        tracemalloc.start()
        calibrate(MODEL, TENSORS, items, config(method))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    kept = 1024 * 12 * graphs.INNER * 4  # bytes of a single one of the tensors, had all items been kept
    assert peaks[2] - peaks[1] < kept / 4


def test_a_batch_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    items = graphs.ids(40)
    one = 12 * graphs.INNER * 4
    monkeypatch.setattr(calibration, "MEMORY_BYTES", 8 * one)
    assert len(values("inner", items)) == 40
    assert max(items.gathered) == 8


def test_items_that_were_not_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Olive#2609: 30 of 128 samples, and nobody was told."""
    whole = calibration._batches
    monkeypatch.setattr(calibration, "_batches", lambda count, size: list(whole(count, size))[:1])
    for method in ("min-max", "percentile"):
        with pytest.raises(LimbeckError, match="read 32 of 96 calibration items"):
            calibrate(MODEL, TENSORS, graphs.ids(), config(method))


def test_no_items_are_no_calibration() -> None:
    with pytest.raises(LimbeckError, match="read 0 of 0 calibration items"):
        calibrate(MODEL, TENSORS, graphs.ids(0), config("min-max"))


def with_constant(value: float) -> onnx.ModelProto:
    """The model, whose `masked` is `inner` but for `value` in the place of what is below 0."""
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    for name, number in (("at_zero", 0), ("put", value)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    model.graph.node.append(helper.make_node("Less", ["inner", "at_zero"], ["below"], name="below"))
    model.graph.node.append(helper.make_node("Where", ["below", "put", "inner"], ["masked"], name="masked"))
    return model


@pytest.mark.parametrize("method", ["min-max", "percentile", "entropy"])
@pytest.mark.parametrize("value", [-np.inf, np.finfo(np.float32).min])
def test_what_a_mask_puts_into_a_tensor_takes_no_levels(method: Calibration, value: float) -> None:
    items = graphs.ids(256)
    low, high = calibrate(with_constant(value), ["masked"], items, config(method))["masked"]
    seen = values("inner", items)
    assert -0.01 <= low <= 0.01  # all below is masked
    assert 0 < high <= seen.max() * (1 + 1e-6)
    assert calibrate(MODEL, [], items, config(method)) == {}


@pytest.mark.parametrize("method", ["min-max", "percentile", "entropy"])
def test_what_is_no_number_is_told_with_the_tensors_name(method: Calibration) -> None:
    with pytest.raises(UserError, match="no number on the calibration items, in its tensor 'masked'") as caught:
        calibrate(with_constant(np.nan), ["inner", "masked"], graphs.ids(), config(method))
    assert "damaged" in caught.value.hint


def test_the_first_items_can_be_enough_to_look_at() -> None:
    seen: list[int] = []
    watch(MODEL, ["inner"], graphs.ids(), lambda batch: seen.append(len(batch["inner"])), items=40)
    assert sum(seen) == 40
    assert np.all(np.array(seen) <= calibration.BATCH)
