"""What the next step of a search will take, by what steps like it took."""

from __future__ import annotations

import pytest

from compress.optimize.forecast import Forecast, too_late
from train.epochs import EpochRecord


def epochs(seconds: float, count: int = 2) -> list[EpochRecord]:
    return [EpochRecord(epoch=at, loss=1.0, accuracy=0.5, seconds=seconds) for at in range(1, count + 1)]


def test_nothing_is_known_before_the_first_of_its_kind() -> None:
    forecast = Forecast(searching=120.0)
    assert forecast.package("teacher", "int8-static", 1.0) is None
    assert forecast.shape() is None
    assert forecast.epoch("small", 10) is None
    assert too_late("it", None, left=1.0) is None


def test_a_package_takes_what_the_last_like_it_took_in_proportion_to_its_graph() -> None:
    forecast = Forecast(searching=120.0)
    forecast.packaged("teacher", "fp32", 1.0, 50.0)  # of which some 10 are imports
    forecast.packaged("teacher", "int8-dynamic", 1.0, 30.0)
    assert forecast.package("teacher", "int8-weights", 1.0) == 40.0
    assert forecast.package("teacher", "int8-static", 1.0) == 80.0
    assert forecast.package("teacher", "int8-mixed", 1.0) == 200.0  # static int8, and its search
    forecast.packaged("teacher", "int8-static", 1.0, 90.0)
    assert forecast.package("teacher", "int8-mixed", 1.0) == 210.0
    assert forecast.package("half", "int8-static", 0.5) == pytest.approx(45.0)
    assert forecast.package("half", "fp16", 0.5) is None


def test_an_epoch_takes_what_its_own_took_or_the_quickest_of_others() -> None:
    forecast = Forecast(searching=120.0)
    forecast.trained("large", 1000, epochs(10.0))
    forecast.trained("small", 100, epochs(4.0))
    assert forecast.epoch("large", 1000) == 10.0
    assert forecast.epoch("next", 500) == 4.0
    assert forecast.epoch("tiny", 10) == pytest.approx(0.1)


def test_why_a_step_is_too_late() -> None:
    assert too_late("the fp32 package", 5.0, left=5.0) is None
    assert too_late("the fp32 package", None, left=0.0) == "the budget ended before the fp32 package"
    why = too_late("the fp32 package", 65.0, left=30.0)
    assert why is not None
    assert "would take about 1\xa0min 05\xa0s" in why
