"""What a server owes to a hostile request: an answer, in time, in one of two forms, that says nothing of its inside."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.hostile.case import Case

PATIENCE_S = 60  # after which an answer counts as one that never comes
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_INSIDE = re.compile(r"Traceback|site-packages|File \\?\"|\.py\b|/serve/|Exception|Error:")
_SHOWN = 20  # complaints of one kind


@dataclass
class Findings:
    """What became of the requests of one kind."""

    asked: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    complaints: list[str] = field(default_factory=list)

    def add(self, name: str, statuses: Iterable[int], seconds: float, complaint: str | None) -> None:
        self.asked += 1
        self.ended = time.monotonic()
        self.statuses.update(str(status) for status in statuses)
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, name
        if complaint is not None and len(self.complaints) < _SHOWN:
            self.complaints.append(f"{name}: {complaint}")

    def as_json(self) -> dict[str, Any]:
        slowest = {"slowest_s": round(self.slowest_s, 3), "slowest": self.slowest}
        seconds = round(self.ended - self.began, 1)
        return {
            "asked": self.asked,
            "seconds": seconds,
            "statuses": dict(self.statuses),
            **slowest,
            "complaints": self.complaints,
        }


def ask_all(port: int, cases: Iterable[Case]) -> Findings:
    """One after the other over kept connections."""
    findings = Findings()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for case in cases:
        began = time.monotonic()
        try:
            status, headers, body = _ask(connection, case)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            findings.add(case.name, (), time.monotonic() - began, f"no answer: {error!r}")
        else:
            complaint = complaint_about(status, headers, body)
            findings.add(case.name, (status,), time.monotonic() - began, complaint)
    connection.close()
    return findings


def _ask(connection: http.client.HTTPConnection, case: Case) -> tuple[int, dict[str, str], bytes]:
    headers = dict(case.headers)
    if case.content_type is not None:
        headers["Content-Type"] = case.content_type
    if case.chunked:
        pieces = (case.body[at : at + 5000] for at in range(0, len(case.body), 5000))
        connection.request(case.method, case.path, pieces, headers, encode_chunked=True)
    else:
        connection.request(case.method, case.path, case.body, headers)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def complaint_about(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """What is wrong with an answer; None: nothing."""
    request_id = headers.get("x-request-id", "")
    if not _REQUEST_ID.fullmatch(request_id):
        return f"{status} with the request id {request_id!r}"
    if headers.get("x-content-type-options") != "nosniff":
        return f"{status} without its security headers"
    if status >= 500:
        return f"{status}: {body[:200]!r}"
    if "json" not in headers.get("content-type", ""):
        return None if status < 400 else f"{status} of the kind {headers.get('content-type')}"
    try:
        content = json.loads(body)
    except ValueError:
        return f"{status} that is no JSON: {body[:200]!r}"
    return _wrong_error(content, request_id) if status >= 400 else _wrong_answer(content)


def _wrong_error(content: Any, request_id: str) -> str | None:
    try:
        error = content["error"]
        well = list(content) == ["error"] and sorted(error) == ["code", "hint", "message", "request_id"]
        well = well and error["request_id"] == request_id and 0 < len(error["message"]) < 600
    except (TypeError, KeyError):
        well = False
    if not well:
        return f"an error in another form: {str(content)[:200]}"
    if inside := _INSIDE.search(error["message"] + error["hint"]):
        return f"an error that speaks of the inside: {inside[0]!r} in {error['message']!r}"
    return None


def _wrong_answer(content: Any) -> str | None:
    for prediction in content.get("predictions", ()):
        if "error" not in prediction and not 0.0 <= prediction["score"] <= 1.0:
            return f"a score of {prediction['score']}"
    return None
