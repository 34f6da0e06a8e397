"""What GET /metrics says of the classifier, summed over the worker processes.

BentoML's folder for them is known only once a worker starts, so prometheus_client is imported no earlier.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from serve.stopwatch import PHASES

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from serve.answers import Answer

# Seconds. A small model answers within the first few; most libraries' buckets begin where its slowest requests end.
_STEPS = (1, 1.5, 2, 3, 5, 7)
_SECONDS = (*(scale * step for scale in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) for step in _STEPS), 10.0, 30.0)
SCORES = tuple(step / 20 for step in range(1, 21))
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MOST_LABELS = 100  # of one model; the rest are counted as one, so that ImageNet does not make 1,000 series
OTHERS = "(others)"


class Instruments:
    """The series of this process. One set for a process: a name can be registered once."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.seconds: Histogram = Histogram(
            "limbeck_phase_seconds", "Time of a request by phase.", ("model", "phase"), buckets=_SECONDS
        )
        self.total: Histogram = Histogram(
            "limbeck_request_seconds", "From a request's whole body to its answer.", ("model",), buckets=_SECONDS
        )
        self.requests: Counter = Counter("limbeck_requests", "Requests to classify.", ("model", "status"))
        self.predictions: Counter = Counter("limbeck_predictions", "Inputs by the label given.", ("model", "label"))
        self.confidence: Histogram = Histogram(
            "limbeck_confidence", "The best score of each input.", ("model",), buckets=SCORES
        )
        self.expected: Gauge = Gauge(
            "limbeck_expected_share",
            "Share of the test split's inputs that the model gives a label.",
            ("model", "label"),
            multiprocess_mode="mostrecent",
        )
        self.expected_confidence: Gauge = Gauge(
            "limbeck_expected_confidence_share",
            "Share of the test split's inputs whose best score is at most le.",
            ("model", "le"),
            multiprocess_mode="mostrecent",
        )
        self.served: Gauge = Gauge(
            "limbeck_served", "1: this model answers to this name.", ("name", "model"), multiprocess_mode="mostrecent"
        )
        self.batches: Histogram = Histogram(
            "limbeck_batch_inputs", "Inputs in one model run, where batching is on.", ("model",), buckets=_BATCHES
        )
        self.inside: Gauge = Gauge(
            "limbeck_in_flight", "Requests to classify in the server.", multiprocess_mode="livesum"
        )


instruments = lru_cache(maxsize=1)(Instruments)


class ServedMetrics:
    """Which model answers to which name; what does no longer stays as 0."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, str]] = set()

    def show(self, models: Mapping[str, str]) -> None:
        """`models` are the ids by name."""
        served = instruments().served
        now = set(models.items())
        for name, model in self._shown - now:
            served.labels(name, model).set(0)
        for name, model in now:
            served.labels(name, model).set(1)
        self._shown |= now


class ModelMetrics:
    """The series of one model. `expected` is its card's: what it answered on the test split."""

    def __init__(self, model: str, labels: Sequence[str], expected: Mapping[str, Mapping[str, float]]) -> None:
        series = instruments()
        self._series = series
        self._model = model
        self._seconds = {phase: series.seconds.labels(model, phase) for phase in PHASES}
        self._total = series.total.labels(model)
        self._confidence = series.confidence.labels(model)
        self._label = {label: label for label in labels[:_MOST_LABELS]}
        self._show_expected(expected)

    def batch(self, inputs: int) -> None:
        """Count a model run for the inputs of several requests."""
        self._series.batches.labels(self._model).observe(inputs)

    def _show_expected(self, expected: Mapping[str, Mapping[str, float]]) -> None:
        shares: dict[str, float] = {}
        for label, share in expected.get("labels", {}).items():
            name = self._label.get(label, OTHERS)
            shares[name] = shares.get(name, 0.0) + share
        for label, share in shares.items():
            self._series.expected.labels(self._model, label).set(share)
        for bound, share in expected.get("confidence", {}).items():
            self._series.expected_confidence.labels(self._model, bound).set(share)

    def count(self, status: int, answer: Answer | None) -> None:
        """Count a request by the status of its answer; where it was classified, also its time and its predictions."""
        if answer is not None:
            answer.stopwatch.stop()
        self.count_all([(status, answer)])

    def count_all(self, requests: Sequence[tuple[int, Answer | None]]) -> None:
        """Count several, whose stopwatches have stopped: each series is written once, not once for each of them."""
        for status, times in Counts(status for status, _ in requests).items():
            self._series.requests.labels(self._model, str(status)).inc(times)
        answers = [answer for _, answer in requests if answer is not None]
        if not answers:
            return
        _observe(self._total, [answer.stopwatch.total for answer in answers])
        for phase, histogram in self._seconds.items():
            laps = [answer.stopwatch.laps[phase] for answer in answers if phase in answer.stopwatch.laps]
            _observe(histogram, laps)
        best = [each for answer in answers for each in answer.best]
        for label, times in Counts(self._label.get(label, OTHERS) for label, _ in best).items():
            self._series.predictions.labels(self._model, label).inc(times)
        _observe(self._confidence, [score for _, score in best])


def _observe(histogram: Histogram, values: Sequence[float]) -> None:
    """What `histogram.observe` does for each value, with one write for each bucket, for which it has no method."""
    if not values:
        return
    bounds = histogram._upper_bounds
    histogram._sum.inc(sum(values))
    for at, times in Counts(bisect_left(bounds, value) for value in values).items():
        histogram._buckets[at].inc(times)
