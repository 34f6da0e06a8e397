"""What the server writes to its log, as lines for people or, with LIMBECK_LOG=json, as JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serve.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from serve.answers import Answer

log = logging.getLogger("bentoml.limbeck")  # below BentoML's logger, so that its handlers and level hold
_FORMATS = ("text", "json")
_ROOTS = ("bentoml", "uvicorn.error", "circus", None)  # the loggers to which BentoML gives handlers; None: the root


def log_format(environ: Mapping[str, str] = os.environ) -> str:
    """The format that LIMBECK_LOG asks for. Raises UserError for an unknown one."""
    name = environ.get("LIMBECK_LOG") or "text"
    if name not in _FORMATS:
        raise UserError(f"LIMBECK_LOG is {name!r}, no format of the log", did_you_mean(name, _FORMATS))
    return name


def set_up(name: str, model: str) -> None:
    """Have every line name the model that this process serves by default, in the format `name`."""
    for logger in map(logging.getLogger, _ROOTS):
        for handler in logger.handlers:
            inner = handler.formatter or logging.Formatter()
            if isinstance(inner, _WithModel | _Json):
                inner.model = model
            else:
                handler.setFormatter(_Json(model) if name == "json" else _WithModel(inner, model))


def log_request(request_id: str, status: int, model: str, answer: Answer | None) -> None:
    """One line for a request to classify. What was sent in it is not logged."""
    laps = answer.stopwatch.laps if answer else {}
    fields = {
        "request_id": request_id,
        "model": model,
        "status": status,
        "inputs": len(answer.predictions) if answer else None,
        **{f"{phase}_ms": round(1000 * seconds, 3) for phase, seconds in laps.items()},
    }
    words = " ".join(f"{key}={value}" for key, value in fields.items() if key != "model" and value is not None)
    log.info("classify %s", words, extra={"fields": fields})


class _WithModel(logging.Formatter):
    """BentoML's own line, and the model's id behind it."""

    def __init__(self, inner: logging.Formatter, model: str) -> None:
        super().__init__()
        self._inner = inner
        self.model = model

    def format(self, record: logging.LogRecord) -> str:
        first, *more = self._inner.format(record).split("\n", 1)
        return "\n".join([f"{first} model={_model(record, self.model)}", *more])


class _Json(logging.Formatter):
    """One object on one line, exceptions included."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "model": self.model,
            "process": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _model(record: logging.LogRecord, default: str) -> str:
    return str(getattr(record, "fields", {}).get("model", default))
