"""[calibrate] and [abstain] in a finished run: nothing is trained again, and what is served is what was measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_run import Ran, content, run_content, scores

from compress.replay import _wrongly_marked
from compress.verify import verify_run
from serve.package import load_package

ASKED = {
    "calibrate": {"temperature": True},
    "abstain": {"precision": 0.5, "confidence": 0.9},
    "quantize": {"precisions": ["fp32", "int8-static"]},
}


@pytest.fixture(scope="module")
def calibrated(tiny: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The tiny run with both; its models are so poor that half of the answers is a promise."""
    folder = Path(shutil.copytree(tiny.folder, tmp_path_factory.mktemp("calibrated") / "run"))
    return run_content(content() | ASKED, folder, memory=False)


def test_the_models_stay_and_the_packages_are_made_again(calibrated: Ran) -> None:
    redone = calibrated.console.redone
    packages = {f"packages/{one.id}" for one in calibrated.report.variants if one.package_id is not None}
    assert len(packages) == 5
    assert packages <= redone
    assert not {"teacher", "students/small", "students/small-alone"} & redone


def test_labels_stay_and_scores_are_calibrated(tiny: Ran, calibrated: Ran) -> None:
    before, after = scores(tiny.folder), scores(calibrated.folder)
    for file, rows in after.items():
        assert (rows.argmax(axis=1) == before[file].argmax(axis=1)).all()
    for variant in calibrated.report.variants:
        was = tiny.report.variant(variant.id)
        assert (variant.errors, variant.flips) == (was.errors, was.flips)
        if variant.package_id is None:
            assert (variant.temperature, variant.ece) == (1.0, was.ece)
            continue
        assert variant.temperature == load_package(calibrated.folder / "packages" / variant.id).manifest.temperature
        assert variant.temperature != 1.0
        assert variant.ece_uncalibrated == pytest.approx(was.ece, abs=1e-4)
        assert was.parity is not None
        assert variant.parity is not None
        assert variant.parity.max_abs == pytest.approx(was.parity.max_abs, abs=1e-6)


def test_the_promise_is_counted_on_test(calibrated: Ran) -> None:
    answers = scores(calibrated.folder)
    kept = 0
    for variant in calibrated.report.variants:
        promise = variant.abstention
        if variant.package_id is None or promise is None or promise.below is None:
            assert variant.package_id is None or variant.verdict == "rejected"
            continue
        given = answers[f"predictions/{variant.id}.parquet"].max(axis=1) >= promise.below
        assert promise.test_answered == given.sum()
        assert promise.coverage == pytest.approx(given.mean())
        assert load_package(calibrated.folder / "packages" / variant.id).manifest.abstain_below == promise.below
        kept += 1
    assert kept


def test_the_same_recipe_again_redoes_nothing(calibrated: Ran) -> None:
    assert run_content(content() | ASKED, calibrated.folder, memory=False).console.redone <= {"memory"}


def test_the_server_answers_as_measured_marks_included(calibrated: Ran) -> None:
    promising = [one for one in calibrated.report.variants if one.abstention and one.abstention.below]
    assert verify_run(calibrated.folder, None, promising[0].id)


def test_the_replay_sees_a_mark_that_is_missing_or_wrong() -> None:
    expected = np.array([0.6, 0.4])
    assert _wrongly_marked({"score": 0.6}, expected, 0.7)
    assert not _wrongly_marked({"score": 0.6, "abstained": True}, expected, 0.7)
    assert _wrongly_marked({"score": 0.6, "abstained": True}, expected, None)
    assert not _wrongly_marked({"score": 0.6}, expected, 0.6)
    assert _wrongly_marked({"score": 0.6, "abstained": True}, expected, 0.6)
