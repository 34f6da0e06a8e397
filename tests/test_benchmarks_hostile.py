"""A sample of the hostile corpus against real servers; `make prove-hostile` sends all of it."""

from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path

import pytest
from helpers import Served, colored

from benchmarks.hostile.attack import Plan, Target, attack
from benchmarks.hostile.case import Case
from benchmarks.hostile.documents import hostile_documents
from benchmarks.hostile.forms import hostile_forms
from benchmarks.hostile.images import hostile_images
from benchmarks.hostile.judge import ask_all, complaint_about
from benchmarks.hostile.wire import good_request, hostile_talks

# Of a seed of its own, so that it is not the beginning of what the large one sends. Conversations take as long as the
# server waits for slow clients, whatever its model is: one server's are enough.
SAMPLES = {
    "served": Plan(seed=7, images=72, documents=70, forms=30, talks=85, examples=2, largest=1_500_000),
    "served_text": Plan(seed=7, documents=100, forms=10, talks=0, examples=2),
}
HEADERS = {"x-request-id": "a", "x-content-type-options": "nosniff", "content-type": "application/json"}


@pytest.mark.parametrize("server", SAMPLES)
def test_a_server_comes_through_the_sample_as_it_was(server: str, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(server)
    task = served.predictor.package.manifest.task
    sample = SAMPLES[server]
    found = attack(Target(served.port, served.pid, served.log, task), sample)
    assert found["complaints"] == []
    asked = {name: kind["asked"] for name, kind in found["kinds"].items()}
    assert (asked["documents"], asked.get("talks", 0)) == (sample.documents, sample.talks)
    assert "200" in found["kinds"]["documents"]["statuses"]  # some of it is good, or it would prove nothing
    assert "422" in found["kinds"]["documents"]["statuses"]


def test_a_pickle_is_loaded_by_no_address_and_under_no_name(served: Served, tmp_path: Path) -> None:
    canary = tmp_path / "loaded"

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (canary,))

    body = pickle.dumps(Harm())
    kinds = ("application/vnd.bentoml+pickle", "application/octet-stream", "application/json", "image/png")
    bento = (("Payload-Container", "DefaultContainer"), ("Payload-Meta", "{}"), ("Args-Number", "1"))
    paths = ("/classify", "/predict", "/schema.json", "/models/tiny/classify")
    cases = [Case("pickle", body, kind, path=path, headers=bento) for kind in kinds for path in paths]
    findings = ask_all(served.port, cases)
    assert findings.complaints == []
    assert not set(findings.statuses) - {"400", "404", "405", "415", "422"}
    assert not canary.exists()


def test_the_corpus_is_the_same_for_a_seed_and_another_for_another() -> None:
    kind, body = good_request("image", colored(1, 2, 3))
    for make in (
        lambda seed: hostile_images(seed, 40, 10_000),
        lambda seed: hostile_documents(seed, 100, "text"),
        lambda seed: hostile_forms(seed, 60),
        lambda seed: hostile_talks(seed, 150, kind, body),
    ):
        first = list(make(1))
        assert list(make(1)) == first
        assert list(make(2)) != first
        assert len({case.name for case in first}) > 1
    longer = list(islice(hostile_documents(1, 500, "text"), 100))
    assert longer == list(hostile_documents(1, 100, "text"))  # a longer one begins with the shorter


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {"x-request-id": ""}, b"{}"),
        (200, {"x-request-id": "a b"}, b"{}"),
        (200, {"x-content-type-options": ""}, b"{}"),
        (500, {}, b"{}"),
        (504, {}, b"{}"),
        (422, {"content-type": "text/plain"}, b"no"),
        (422, {}, b"no JSON"),
        (422, {}, b'{"error": "no"}'),
        (422, {}, b'{"error": {"code": "c", "message": "m", "hint": "h", "request_id": "another"}}'),
        (422, {}, b'{"error": {"code": "c", "message": "in /srv/x.py line 3", "hint": "h", "request_id": "a"}}'),
        (200, {}, b'{"predictions": [{"label": "a", "score": 1.5}]}'),
    ],
)
def test_an_answer_that_is_not_well_is_complained_of(status: int, headers: dict[str, str], body: bytes) -> None:
    assert complaint_about(status, HEADERS | headers, body) is not None


def test_a_good_answer_and_a_good_error_are_not() -> None:
    assert complaint_about(200, HEADERS, b'{"predictions": [{"label": "a", "score": 1.0}, {"error": {}}]}') is None
    error = b'{"error": {"code": "c", "message": "m", "hint": "", "request_id": "a"}}'
    assert complaint_about(422, HEADERS, error) is None
