"""Whatever the OpenAPI document allows, and what it forbids, by schemathesis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.hostile.judge import Findings

# A string that is not an image satisfies the document, and is refused all the same.
_NOT_PROMISED = {"positive_data_acceptance"}


def explore(url: str, examples: int, seed: int) -> Findings:
    """`examples` of each operation, good ones and then bad ones. Schemathesis is a development dependency."""
    import hypothesis
    import schemathesis
    from schemathesis import GenerationMode, checks

    checks.load_all_checks()
    refusals = {"negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 414, 415, 422, 431]}}
    config = schemathesis.Config.from_dict({"checks": refusals})
    excluded = [check for check in checks.CHECKS.get_all() if check.__name__ in _NOT_PROMISED]
    findings = Findings()
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json", config=config).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # an Err would raise
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            judge = partial(_judge, findings, f"{operation.label}, {mode.value}", excluded)
            search = hypothesis.given(operation.as_strategy(generation_mode=mode))(_plain(judge))
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # an address without input takes nothing wrong
                hypothesis.seed(seed)(settings(search))()
    return findings


def _plain(judge: Callable[[Any], None]) -> Callable[[Any], None]:
    """As a function with one argument and a name, which Hypothesis asks for."""

    def answered_as_described(case: Any) -> None:
        judge(case)

    return answered_as_described


def _judge(findings: Findings, name: str, excluded: list[Any], case: Any) -> None:
    """All failures are gathered: raised, they would end the search, and each would be made smaller."""
    from schemathesis.core.failures import FailureGroup

    began, complaint = time.monotonic(), None
    response = case.call()
    seconds = time.monotonic() - began
    try:
        case.validate_response(response, excluded_checks=excluded)
    except FailureGroup as group:
        complaint = "; ".join(f"{type(failure).__name__}: {failure}"[:600] for failure in group.exceptions)
    findings.add(name, (response.status_code,), seconds, complaint)
