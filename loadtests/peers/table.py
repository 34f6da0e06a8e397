"""What the rounds came to: medians, ratios within the same round, and the targets beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from loadtests.peers.contenders import BARE, BENTOML, LITSERVE, OURS
from loadtests.peers.rounds import CONNECTIONS, Round, Sent
from loadtests.samples import Histogram

ONE, MANY = CONNECTIONS
_TAIL_NEEDS = 1_000  # requests in a round, for its 99th percentile


@dataclass(frozen=True)
class Row:
    """One contender at so many connections: medians of the rounds."""

    contender: str
    connections: int
    p50_ms: float
    p99_ms: float | None  # None below 1,000 requests in a round
    requests_per_second: float
    above_bare_ms: float  # of the median latency
    times_bare: float  # requests per second
    server_cpu_ms: float  # processor time for each request
    generator_busy: float  # share of its core


@dataclass(frozen=True)
class Target:
    """What our server is to reach, and what it reached."""

    what: str
    wanted: str
    measured: float
    met: bool


def rows(rounds: Sequence[Round]) -> list[Row]:
    """A row for each contender and number of connections, in the order in which they were first met."""
    names = list(dict.fromkeys(name for name, _ in rounds[0]))
    names.sort(key=[OURS, BARE, BENTOML, LITSERVE].index)
    return [_row(rounds, name, connections) for connections in CONNECTIONS for name in names]


def _row(rounds: Sequence[Round], name: str, connections: int) -> Row:
    enough = len(rounds[0][name, connections].latencies_ms) >= _TAIL_NEEDS
    return Row(
        contender=name,
        connections=connections,
        p50_ms=round(_over(rounds, lambda each: p50(each[name, connections])), 3),
        p99_ms=round(_over(rounds, lambda each: p99(each[name, connections])), 3) if enough else None,
        requests_per_second=round(_over(rounds, lambda each: rate(each[name, connections])), 1),
        above_bare_ms=round(_over(rounds, lambda each: p50(each[name, connections]) - p50(each[BARE, connections])), 3),
        times_bare=round(_over(rounds, lambda each: rate(each[name, connections]) / rate(each[BARE, connections])), 3),
        server_cpu_ms=round(_over(rounds, lambda each: each[name, connections].server_cpu_ms), 3),
        generator_busy=round(_over(rounds, lambda each: each[name, connections].generator_busy), 3),
    )


def targets(rounds: Sequence[Round]) -> list[Target]:
    """Ours against the others, each a median of what was measured within one round."""
    found = [
        _target(
            rounds,
            "ms above bare, 1 connection (p50)",
            lambda each: p50(each[OURS, ONE]) - p50(each[BARE, ONE]),
            most=0.15,
        ),
        _target(
            rounds,
            "ms below BentoML, 1 connection (p50)",
            lambda each: p50(each[BENTOML, ONE]) - p50(each[OURS, ONE]),
            least=0.3,
        ),
        _target(
            rounds,
            "times bare's p99, 1 connection",
            lambda each: p99(each[OURS, ONE]) / p99(each[BARE, ONE]),
            most=1.2,
        ),
        _target(rounds, "times bare's requests/s, 16 connections", _faster_than(BARE, MANY), least=0.90),
        _target(rounds, "times BentoML's requests/s, 16 connections", _faster_than(BENTOML, MANY), least=1.4),
    ]
    if (LITSERVE, ONE) in rounds[0]:
        found += [
            _target(rounds, f"times LitServe's requests/s, {each} connections", _faster_than(LITSERVE, each), least=1.0)
            for each in CONNECTIONS
        ]
    return found


def _target(
    rounds: Sequence[Round],
    what: str,
    measure: Callable[[Round], float],
    least: float | None = None,
    most: float | None = None,
) -> Target:
    measured = round(_over(rounds, measure), 3)
    if least is not None:
        return Target(what, f"at least {least:g}", measured, measured >= least)
    assert most is not None
    return Target(what, f"at most {most:g}", measured, measured <= most)


def _faster_than(name: str, connections: int) -> Callable[[Round], float]:
    return lambda each: rate(each[OURS, connections]) / rate(each[name, connections])


def _over(rounds: Sequence[Round], measure: Callable[[Round], float]) -> float:
    return median(measure(each) for each in rounds)


def p50(sent: Sent) -> float:
    return float(median(sent.latencies_ms))


def p99(sent: Sent) -> float:
    histogram = Histogram()
    for latency in sent.latencies_ms:
        histogram.add(latency)
    found = histogram.percentile(99)
    assert found is not None
    return found


def rate(sent: Sent) -> float:
    return len(sent.latencies_ms) / sent.seconds


def lines(title: str, rounds: Sequence[Round]) -> list[str]:
    """The table and the targets for a terminal."""
    count = len(rounds[0][OURS, ONE].latencies_ms)
    columns = ("conn.", 6), ("p50 ms", 9), ("p99 ms", 9), ("req/s", 9), ("above bare", 12), ("x bare", 8), ("CPU ms", 8)
    head = " " * 22 + "".join(f"{name:>{width}}" for name, width in (*columns, ("generator", 11)))
    told = [f"{title}: medians of {len(rounds)} rounds, {count:,} requests in each", head]
    for row in rows(rounds):
        tail = "-" if row.p99_ms is None else f"{row.p99_ms:.2f}"
        told.append(
            f"{row.contender:<22}{row.connections:>6}{row.p50_ms:>9.3f}{tail:>9}{row.requests_per_second:>9.0f}"
            f"{row.above_bare_ms:>+12.3f}{row.times_bare:>8.2f}{row.server_cpu_ms:>8.3f}{row.generator_busy:>11.0%}"
        )
    for target in targets(rounds):
        told.append(f"  {'met   ' if target.met else 'MISSED'} {target.measured:8.3f} {target.what}, {target.wanted}")
    return told


def as_json(rounds: Sequence[Round]) -> dict[str, Any]:
    """The same for a file."""
    return {
        "rounds": len(rounds),
        "requests_in_each": len(rounds[0][OURS, ONE].latencies_ms),
        "rows": [asdict(row) for row in rows(rounds)],
        "targets": [asdict(target) for target in targets(rounds)],
    }
