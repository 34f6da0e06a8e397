"""Load a running server with the items of a run's test split, and check every answer against what was measured.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000
    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --headless -u 4 -r 4 -t 10s
    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --headless --rate 200 -t 60s --slo "p99<20ms"

The items come from `loadtest/payloads.json` in the run that LIMBECK_RUN names, else in the newest run that has one. A
wrong or failed answer counts as a failure, and any failure makes a headless test end with status 1.
Closed loop by default: each user sends its next request when the last is answered, so the rate follows the server, and
a server that stalls is asked less. With --rate or --load the loop is open: requests are sent when they are due.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task
from locust.runners import MasterRunner, WorkerRunner

from loadtests.bodies import SINGLE, Request, as_json, as_multipart, as_raw
from loadtests.openloop import OpenLoop, check
from loadtests.options import add_options, objective_of, out_of, phases_of, refusal, settings_of
from loadtests.payloads import find_payloads, load_payloads
from loadtests.recorder import Recorder
from loadtests.schedule import arrivals, length

BATCH = 8
PAYLOADS = load_payloads(find_payloads())
RECORDER = Recorder({})


class Client(FastHttpUser):
    """Sends single inputs mostly, and batches now and then, as JSON."""

    abstract = True
    wait_time = constant(0)

    @task(4)
    def json_single(self) -> None:
        self._send(as_json(random.sample(PAYLOADS.items, 1)))

    @task(2)
    def json_batch(self) -> None:
        self._send(as_json(random.choices(PAYLOADS.items, k=BATCH)))

    def _send(self, request: Request) -> None:
        sent = RECORDER.now
        with self.client.post(
            "/classify",
            data=request.body,
            headers=request.headers,
            name=request.name,
            catch_response=True,
        ) as response:
            latency = 1000 * (RECORDER.now - sent)
            if problem := check(response, request, PAYLOADS):
                response.failure(problem)
                RECORDER.samples.failed(sent, problem)
            else:
                RECORDER.samples.answered(sent, latency)


class TextClient(Client):
    """Texts, which only JSON carries."""

    abstract = PAYLOADS.task != "text"


class ImageClient(Client):
    """Images, as multipart and raw besides."""

    abstract = PAYLOADS.task != "image"

    @task(1)
    def multipart(self) -> None:
        self._send(as_multipart(random.choices(PAYLOADS.items, k=2)))

    @task(3)
    def raw(self) -> None:
        self._send(as_raw([random.choice(PAYLOADS.items)]))


class OpenLoopClient(OpenLoop):
    """Takes the place of the others where --rate or --load is given."""

    abstract = False
    payloads = PAYLOADS
    recorder = RECORDER


events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def choose_loop(environment: Any, **_: Any) -> None:
    """Now that the command line is known: open or closed loop, and what is done at the end."""
    options = environment.parsed_options
    phases = phases_of(options)
    RECORDER.settings, RECORDER.warm_up = settings_of(options), options.warm_up
    RECORDER.objective, RECORDER.out = objective_of(options), out_of(options)
    # gevent has not looked at the clock since before the imports; -t would end that much too early
    gevent.get_hub().loop.update_now()
    environment.user_classes = [each for each in environment.user_classes if (each is OpenLoopClient) == bool(phases)]
    if not phases:
        environment.events.test_start.add_listener(lambda **_: RECORDER.start())
    elif isinstance(environment.runner, MasterRunner | WorkerRunner):
        raise refusal("each process would send the whole schedule", "leave out --processes, --master and --worker")
    else:
        _open(options, phases)

    @environment.events.quitting.add_listener
    def end(environment: Any, **_: Any) -> None:
        code = RECORDER.end(open_loop=bool(phases))
        if code is not None:
            environment.process_exit_code = code


def _open(options: Any, phases: Any) -> None:
    if PAYLOADS.task == "text" and options.body != "json":
        raise refusal(f"--body {options.body}: texts are sent as JSON alone", "leave it out")
    OpenLoopClient.make = staticmethod(SINGLE[options.body])
    OpenLoopClient.due = staticmethod(lambda: arrivals(phases, options.seed))
    OpenLoopClient.seed, OpenLoopClient.max_in_flight = options.seed, options.max_in_flight
    OpenLoopClient.concurrency = options.max_in_flight
    options.num_users, options.spawn_rate = 1, 1
    options.run_time = length(phases) + OpenLoopClient.drain_seconds + 5  # it ends by itself before that
