"""What our locust file adds to locust's command line and web page."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from loadtests.bodies import SINGLE
from loadtests.objective import Objective, parse_objective
from loadtests.schedule import Phase, parse_load


def add_options(parser: Any) -> None:
    group = parser.add_argument_group(
        "limbeck", "Open loop with --rate or --load; else each of -u users waits for its answer."
    )
    group.add_argument("--rate", type=float, help="requests per second, at Poisson times, for as long as -t says")
    group.add_argument("--load", help="steps, spikes, a soak: requests/s x seconds, as in 50x10,400x2,50x10")
    group.add_argument("--seed", type=int, default=0, help="of the times and the choice of items (default 0)")
    group.add_argument("--body", choices=sorted(SINGLE), default="json", help="open loop: how an item is sent")
    group.add_argument("--warm-up", type=float, default=0.0, help="seconds at the start that do not count")
    group.add_argument("--max-in-flight", type=int, default=1000, help="open loop: more are not sent, and failed")
    group.add_argument("--slo", help='for example "p99<20ms,errors<0.1%%"; exit status 0, 1 (broken) or 3 (not shown)')
    group.add_argument("--out", help="a JSON file for all that was measured")


def phases_of(options: Namespace) -> tuple[Phase, ...] | None:
    """The schedule that was asked for; None: closed loop. Ends the process with a message where it makes no sense."""
    if options.rate is not None and options.load:
        raise refusal("--rate and --load both say how much to send", "give one of them")
    if options.load:
        try:
            return parse_load(options.load)
        except ValueError as error:
            raise refusal(f"--load: {error}", "a soak of an hour is 50x3600") from None
    if options.rate is None:
        return None
    if not 0 < options.rate <= 1e6:
        raise refusal(f"--rate {options.rate:g}: expected requests per second above 0", "for example --rate 100")
    if not options.run_time:
        raise refusal("--rate needs to know for how long", "give -t 60s, or --load 100x60")
    return (Phase(options.rate, float(options.run_time)),)


def objective_of(options: Namespace) -> Objective | None:
    if not options.slo:
        return None
    try:
        return parse_objective(options.slo)
    except ValueError as error:
        raise refusal(f"--slo: {error}", 'for example --slo "p99<20ms,errors<0.1%"') from None


def out_of(options: Namespace) -> Path | None:
    return Path(options.out) if options.out else None


def settings_of(options: Namespace) -> dict[str, Any]:
    """What decides the load, for the record."""
    names = ("rate", "load", "seed", "body", "warm_up", "max_in_flight", "slo", "run_time", "num_users", "host")
    return {name: getattr(options, name, None) for name in names}


def refusal(message: str, hint: str) -> SystemExit:
    return SystemExit(f"error: {message}\nhint: {hint}")
