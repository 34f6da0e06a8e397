"""The least that answers: uvicorn, Starlette and the predictor, called on the event loop. No limits, no checks.

    LIMBECK_PACKAGE=PACKAGE python -m uvicorn loadtests.peers.bare:app --no-access-log

A thread for the model would cost another 0.05 ms or more for each request, and gain nothing on one core.
"""

from __future__ import annotations

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from loadtests.peers.answer import Model

MODEL = Model()


async def classify(request: Request) -> JSONResponse:
    """A raw image, or JSON with one text."""
    body = await request.body()
    item = body if MODEL.task == "image" else json.loads(body)["inputs"][0].encode()
    return JSONResponse(MODEL.answer(item))


app = Starlette(routes=[Route("/classify", classify, methods=["POST"])])
