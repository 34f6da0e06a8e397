"""Open loop: one user holds the schedule and sends each request when it is due, whatever became of those before."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.exception import StopUser

from loadtests.bodies import Request
from loadtests.payloads import Payloads
from loadtests.recorder import Recorder

# An idle core was woken up to 2 ms late (p99 1.7 ms at 10 requests/s on 2 virtual cores, where 1 ms is allowed), so the
# generator is awake for this long before each arrival. On a machine's only core that would slow the server itself.
_AWAKE_S = 0.003 if (os.cpu_count() or 1) > 1 else 0.0
DROPPED = "never sent: too many requests were under way"


class OpenLoop(FastHttpUser):
    """Set up by `locustfile.py`, which knows the command line; a second user of this class would double the rate."""

    abstract = True
    fixed_count = 1
    payloads: Payloads
    recorder: Recorder
    make: Callable[[list[Any]], Request]  # a request of one item
    due: Callable[[], Iterator[float]]  # when requests are due, in seconds after the start
    seed = 0
    max_in_flight = 1000
    drain_seconds = 10.0  # for answers that are still to come when all is sent

    def on_start(self) -> None:
        self.recorder.start()
        self._in_flight = Group()
        self._draw = random.Random(self.seed)

    @task
    def send_all(self) -> None:
        """The whole schedule, once; then the test ends."""
        for due in self.due():
            self._wait_until(due)
            self._dispatch(due)
        self._in_flight.join(timeout=self.drain_seconds)
        self._in_flight.kill()
        self._quit()
        raise StopUser

    def _wait_until(self, due: float) -> None:
        """Sleep, and be awake for the last moment. Answers are read meanwhile, also while the schedule is behind."""
        gevent.sleep(max(due - _AWAKE_S - self.recorder.now, 0))
        while self.recorder.now < due:
            gevent.sleep(0)

    def on_stop(self) -> None:
        self._in_flight.kill()

    def _dispatch(self, due: float) -> None:
        request = self.make([self._draw.choice(self.payloads.items)])
        if len(self._in_flight) >= self.max_in_flight:
            self._tell_dropped(request, due)
        else:
            self._in_flight.spawn(self._send, request, due)

    def _send(self, request: Request, due: float) -> None:
        self.recorder.samples.lag.add(1000 * max(self.recorder.now - due, 0.0))
        try:
            with self.client.post(
                "/classify",
                data=request.body,
                headers=request.headers,
                name=request.name,
                catch_response=True,
            ) as response:
                latency = 1000 * (self.recorder.now - due)
                response.request_meta["response_time"] = latency  # what locust's own tables show
                if problem := check(response, request, self.payloads):
                    response.failure(problem)
                    self.recorder.samples.failed(due, problem)
                else:
                    self.recorder.samples.answered(due, latency)
        except gevent.GreenletExit:
            self.recorder.samples.failed(due, f"no answer within {self.drain_seconds:g} s after the last was sent")

    def _tell_dropped(self, request: Request, due: float) -> None:
        self.recorder.samples.failed(due, DROPPED, dropped=True)
        self.environment.events.request.fire(
            request_type="POST",
            name=request.name,
            response_time=0,
            response_length=0,
            exception=RuntimeError(DROPPED),
            context={},
            start_time=time.time(),
            url="/classify",
            response=None,
        )

    def _quit(self) -> None:
        runner = self.environment.runner
        assert runner is not None
        gevent.spawn(runner.stop if self.environment.web_ui else runner.quit)  # from outside of the user that it ends


def check(response: Any, request: Request, payloads: Payloads) -> str:
    """What is wrong with a response; empty if nothing is."""
    if response.status_code != 200:
        return f"status {response.status_code}: {(response.text or str(response.error or ''))[:200]}"
    try:
        answer = response.json()
    except ValueError as error:
        return f"the answer is no JSON: {error}"
    return payloads.wrong(answer, request.items)
