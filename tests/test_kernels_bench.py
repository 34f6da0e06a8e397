"""The benchmark without a GPU: every contender is run for its result, times come from a planted timer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_kernels_doctor import H200

from compress import cli
from kernels import catalog, tuning
from kernels.bench import record
from kernels.bench import search as searching
from kernels.bench.case import COMPILE, EAGER, OURS, Case, Target, compiled, error, exact, runner
from kernels.bench.catalog import cases
from kernels.bench.measure import OUT_OF_TIME, Bench, Result
from kernels.bench.roofline import Roofline, measure_roofline
from kernels.bench.search import Search
from kernels.bench.timing import CudaTimer, Times
from kernels.tolerances import excess

WITHOUT = {"early_gradient"}  # a part of the losses
CPU = torch.device("cpu")
ASKED = (("forward", 1536), ("forward", 3072), ("backward", 1536))
ROWS = 6
ROOF = Roofline(copy_gb_s=4000.0, bf16_tflops=800.0, int8_tops=1600.0, datasheet_gb_s=4800.0)
CASES = {case.title: case for case in cases()}
GELU = CASES["bias_gelu forward bf16 C=1536"]


class Planted:
    """Says that each contender took the next of `milliseconds`, and runs each once."""

    def __init__(self, *milliseconds: float) -> None:
        self.left = list(milliseconds)
        self.runs: list[int] = []

    def __call__(self, run: Callable[[], Any], runs: int = 100) -> list[float]:
        run()
        self.runs.append(runs)
        return [self.left.pop(0)] * runs


def measured(case: Case, *milliseconds: float) -> Result:
    bench = Bench(Planted(*milliseconds), ROOF, CPU, deadline=1.0, clock=lambda: 0.0, backend="aot_eager", rows=ROWS)
    return next(bench.measure([case]))


def test_every_kernel_has_cases_of_its_name() -> None:
    assert {case.kernel for case in CASES.values()} >= set(catalog.stems()) - WITHOUT
    assert len(CASES) == len(cases())
    in_use = {tunable.op for case in CASES.values() for tunable in case.tunes}
    assert in_use == {tunable.op for tunable in catalog.tunables() if tunable.stem not in WITHOUT}


@pytest.mark.parametrize("title", CASES)
def test_every_contender_computes_the_same(title: str) -> None:
    case = replace(CASES[title], rows=ROWS)
    torch.manual_seed(0)
    inputs = case.make(ROWS, CPU)
    right = exact(case, inputs)
    assert all(each.dtype in (torch.float64, torch.int64, torch.int8, torch.float32) for each in right)
    assert error(case, runner(case, case.ours, inputs)(), right) <= 1
    others = {EAGER: case.plain, COMPILE: compiled(case.plain, backend="aot_eager"), **dict(case.others)}
    for name, function in others.items():
        run = runner(case, function, inputs)
        for _ in range(2):  # a graph that is run backward twice
            assert error(case, run(), right) < 30, name  # bf16 arithmetic in between, not other numbers
    assert case.moved(inputs) > 0


@pytest.mark.parametrize("title", CASES)
def test_a_case_fills_more_than_the_cache_and_has_a_target(title: str) -> None:
    case = CASES[title]
    assert case.targets
    few = case.moved(case.make(ROWS, CPU))
    if case.roof == "copy":
        assert few / ROWS * case.rows >= 256 << 20


@pytest.mark.parametrize("title", [title for title in CASES if "backward" in title])
def test_gradients_that_are_wrong_are_seen(title: str) -> None:
    case = replace(CASES[title], rows=ROWS)
    inputs = case.make(ROWS, CPU)
    found = list(runner(case, case.plain, inputs)())
    found[-1] = found[-1] + 1
    assert error(case, found, exact(case, inputs)) > 1


def test_a_kernel_is_right_before_any_time_is_taken() -> None:
    wrong = replace(GELU, ours=lambda x, bias: torch.relu(x + bias))
    result = measured(wrong)  # a timer without times: asking it would fail
    assert result.wrong
    assert [(each.name, each.times) for each in result.contenders] == [(OURS, None)]
    assert "wrong: " in str(result.contenders[0].failed)
    assert not record.all_met([result])
    assert {row[2:] for row in record.targets([result], ROOF, None)[1:]} == {("not measured", "?")}


def test_times_rates_and_targets() -> None:
    case = replace(GELU, targets=(Target("roof", 0.85), Target(COMPILE, 1.2), Target(EAGER, 3.0)))
    moved = 2 * ROWS * 1536 * 2
    at_roof = moved / ROOF.copy_gb_s / 1e6  # ms
    result = measured(case, at_roof / 0.9, at_roof * 2, at_roof / 0.72)
    assert result.of_roof == pytest.approx(0.9)
    assert [(o.target, o.met) for o in result.outcomes] == [
        (">= 85% of the roof", True), (">= 1.2x compile", True), (">= 3x eager", False),
    ]  # fmt: skip
    assert [o.measured for o in result.outcomes] == pytest.approx([0.9, 1.25, 1.8])
    again = replace(ROOF, copy_gb_s=4200.0)
    assert record.targets([result], ROOF, again) == [
        ("copy", ">= 85% of the datasheet", "83.3%", "no"),
        ("copy, measured again", "within 3%", "5.0%", "no"),
        (GELU.title, ">= 85% of the roof", "90.0%", "yes"),
        (GELU.title, ">= 1.2x compile", "1.25x", "yes"),
        (GELU.title, ">= 3x eager", "1.80x", "no"),
    ]
    rows = record.times([result])
    assert [row[1] for row in rows] == [OURS, EAGER, COMPILE]
    assert [row[4:7] for row in rows] == [
        ("3,600 GB/s", "90.0%", "1.00x"), ("2,000 GB/s", "50.0%", "1.80x"), ("2,880 GB/s", "72.0%", "1.25x"),
    ]  # fmt: skip
    assert not record.all_met([result])
    assert record.all_met([measured(replace(case, targets=case.targets[:2]), at_roof, at_roof * 2, at_roof * 2)])


def test_a_contender_that_fails_or_is_missing_is_named_and_the_others_count() -> None:
    def absent() -> Any:
        raise ImportError("no", name="liger_kernel")

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of luck\nand more")

    result = measured(replace(GELU, liger=absent, others=(("broken", broken),)), 1.0, 1.0, 1.0)
    assert not result.wrong
    assert [(each.name, each.failed) for each in result.contenders[-2:]] == [
        ("liger", "not installed: liger_kernel"),
        ("broken", "RuntimeError: out of luck"),
    ]


def test_a_reference_that_does_not_fit_into_memory_skips_its_case_alone() -> None:
    def too_large(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")

    bench = Bench(Planted(*[1.0] * 3), ROOF, CPU, 1.0, lambda: 0.0, "aot_eager", ROWS)
    first, second = bench.measure([replace(GELU, make=too_large), GELU])
    assert first.skipped == "not measured: OutOfMemoryError: CUDA out of memory. Tried to allocate 90 GiB"
    assert second.skipped is None


def test_when_the_time_is_over_what_is_left_says_so() -> None:
    now = iter([0.0, 0.0, 0.0, 9.0, 9.0, 9.0])
    bench = Bench(Planted(1.0, 1.0), ROOF, CPU, 1.0, lambda: next(now), "aot_eager", ROWS)
    first, second = bench.measure([GELU, GELU])
    assert [each.failed for each in first.contenders] == [None, None, OUT_OF_TIME]
    assert (second.skipped, second.contenders) == (OUT_OF_TIME, ())
    assert not record.all_met([first, second])
    assert record.targets([second], ROOF, None)[-1][2:] == (OUT_OF_TIME, "?")


def test_everything_is_in_the_file(tmp_path: Path) -> None:
    result = measured(GELU, 1.0, 2.0, 3.0)
    record.write(record.as_json([result], ROOF, ROOF, H200, {"clocks.sm": "1980"}), tmp_path / "deep" / "bench.json")
    content = json.loads((tmp_path / "deep" / "bench.json").read_text())
    assert content["machine"]["gpu"] == "NVIDIA H200"
    assert content["machine"]["driver"] == "580.65.06"
    assert content["clocks"] == {"clocks.sm": "1980"}
    assert content["cases"][0]["contenders"][1]["times"] == {
        "median_ms": 2.0, "p20_ms": 2.0, "p80_ms": 2.0, "runs": 100,
    }  # fmt: skip
    assert [row["met"] for row in content["targets"]] == ["no", "yes", "no", "yes"]


def test_the_roofline_is_bytes_and_operations_by_time() -> None:
    found = measure_roofline(Planted(1.0, 2.0, 4.0), CPU, copy_bytes=1_000_000, side=32)
    assert found.copy_gb_s == pytest.approx(2.0)
    assert found.bf16_tflops == pytest.approx(2 * 32**3 / 2e9)
    assert found.int8_tops == pytest.approx(2 * 32**3 / 4e9)
    assert found.rate("copy") == pytest.approx(2e6)
    assert found.rate("int8") == pytest.approx(2 * 32**3 / 4)
    assert found.datasheet_gb_s is None


def test_the_timer_queues_each_run_behind_a_flush_and_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Event:
        made = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            Event.made += 1
            self.name = ("start", "end")[(Event.made - 1) % 2]

        def record(self) -> None:
            order.append(self.name)

        def elapsed_time(self, end: Event) -> float:
            assert (self.name, end.name) == ("start", "end")
            return 1.5

    class Buffer:
        def max(self) -> None:
            order.append("flush")

    asked = {}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(L2_cache_size=100 << 20))
    monkeypatch.setattr(torch, "zeros", lambda count, **options: asked.update(count=count, **options) or Buffer())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: order.append("wait"))
    timer = CudaTimer(warm_up=2)
    assert timer(lambda: order.append("run"), runs=3) == [1.5, 1.5, 1.5]
    assert asked == {"count": (400 << 20) // 4, "dtype": torch.int32, "device": "cuda"}  # four times the L2
    one = ["flush", "wait", "start", "run", "end"]
    assert order == ["run", "run", "synchronize", *one, *one, *one, "synchronize"]


def test_times_of_one_and_of_many() -> None:
    assert Times.of([3.0]) == Times(3.0, 3.0, 3.0, 1)
    found = Times.of([float(each) for each in range(1, 101)])
    assert (found.median_ms, found.runs) == (50.5, 100)
    assert found.p20_ms == pytest.approx(20.2)
    assert found.p80_ms == pytest.approx(80.8)


def test_the_excess_of_an_error() -> None:
    nan, inf = float("nan"), float("inf")
    exact_values = torch.tensor([1.0, inf, nan], dtype=torch.float64)
    assert excess(torch.tensor([1.0, inf, nan]), exact_values) == 0
    assert excess(torch.tensor([1.0 + 4e-6, inf, nan]), exact_values) == pytest.approx(4e-6 / 2.3e-6, rel=0.05)
    for other in ([1.0, -inf, nan], [nan, inf, nan], [1.0, inf, 0.0], [1.0, 1.0, nan]):
        assert excess(torch.tensor(other), exact_values) == inf
    assert excess(torch.empty(0), torch.empty(0).double()) == 0


# the search


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    tuning.forget()
    yield tmp_path
    tuning.forget()


class BySizes:
    """A timer to which the sizes that are forced are the time: 5 ms for the heuristic's, less for `best`."""

    def __init__(self, best: dict[str, int], gain: float) -> None:
        self.best, self.gain = best, gain

    def __call__(self, run: Callable[[], Any], runs: int = 100) -> list[float]:
        forced = next(iter(tuning._forced.values()))
        return [5.0 * self.gain if forced == self.best else 5.0] * runs


def search(timer: Any, **more: Any) -> Search:
    versions = {"triton": "3.9.0"}
    return Search(timer, CPU, 90, "NVIDIA H200", versions, deadline=1.0, clock=lambda: 0.0, rows=ROWS, **more)


def test_the_search_finds_the_fastest_sizes_and_a_launch_takes_them(folder: Path) -> None:
    tunable = GELU.tunes[0]
    best = tunable.candidates(C=1536)[3]
    found = search(BySizes(best, 0.5)).one(GELU, tunable)
    assert found.tried >= len(tunable.candidates(C=1536))
    assert (found.entry.sizes, found.entry.median_us, found.entry.heuristic_us) == (best, 2500.0, 5000.0)
    assert not found.refused
    tuning.write("bias_gelu", [found.entry])
    assert tunable.entry_for(90, "NVIDIA H200", "bf16", {"C": 1536}) == found.entry
    assert best in tunable.committed("bf16", C=1536)


def test_a_gain_of_less_than_one_percent_keeps_the_heuristic(folder: Path) -> None:
    tunable = GELU.tunes[0]
    found = search(BySizes(tunable.candidates(C=1536)[3], 0.995)).one(GELU, tunable)
    assert found.entry.sizes == tunable.heuristic(C=1536)


def test_sizes_that_fail_or_give_other_numbers_are_never_chosen(folder: Path) -> None:
    tunable = GELU.tunes[0]
    fails, lies = tunable.candidates(C=1536)[2:4]

    def ours(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        forced = tuning._forced.get(tunable.op)
        if forced == fails:
            raise RuntimeError("out of resource: shared memory")
        return GELU.ours(x, bias) + (1 if forced == lies else 0)

    case = replace(GELU, ours=ours)
    found = search(BySizes(lies, 0.1)).one(case, tunable)
    assert found.entry.sizes == tunable.heuristic(C=1536)
    assert found.refused[str(fails)] == "RuntimeError: out of resource: shared memory"
    assert found.refused[str(lies)].startswith("wrong: ")
    broken = replace(GELU, ours=lambda x, bias: x)
    with pytest.raises(ValueError, match="the heuristic's sizes"):
        search(BySizes(lies, 0.1)).one(broken, tunable)
    first, second = search(BySizes(lies, 0.1)).all([broken, CASES["bias_gelu backward bf16 C=1536"]])
    assert first.entry is None
    assert "the heuristic's sizes" in first.refused[GELU.title]
    assert second.entry is not None


def test_each_bucket_is_searched_once_and_not_when_the_time_is_over(folder: Path) -> None:
    timer = BySizes({}, 1.0)
    assert len(list(search(timer).all([GELU, GELU]))) == 1
    assert not list(replace(search(timer), clock=lambda: 2.0).all([GELU]))
    late = iter([0.0, 0.0, *[9.0] * 99])
    found = replace(search(timer), clock=lambda: next(late)).one(GELU, GELU.tunes[0])
    assert found.tried == 3


def test_each_has_an_equal_share_of_the_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    monkeypatch.setattr(Search, "one", lambda self, case, tunable: shares.append(self.deadline))
    now = iter([0.0, 3.0, 4.0])  # the first took longer than its share
    three = replace(search(BySizes({}, 1.0)), deadline=6.0, clock=lambda: next(now))
    list(three.all(CASES[f"bias_gelu {name} bf16 C={width}"] for name, width in ASKED))
    assert shares == [2.0, 4.5, 6.0]


# the commands


@pytest.mark.parametrize("command", ["bench", "tune", "gpu"])
def test_without_a_gpu_the_commands_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["limbeck", "kernels", command, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert "here: there is no NVIDIA driver, so no NVIDIA GPU" in said.err
    assert "hint: it takes an NVIDIA GPU of compute capability 8.0 or newer" in said.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A machine that says it has an H200, whose timer is planted and whose tensors are on the CPU."""
    monkeypatch.setattr("compress.cli.kernels_gpu._gpu", lambda _: H200)
    monkeypatch.setattr("kernels.bench.timing.CudaTimer", lambda: lambda run, runs=100: [1.0] * runs)
    monkeypatch.setattr("kernels.bench.roofline.measure_roofline", lambda *_: ROOF)
    few = [replace(case, rows=ROWS) for case in cases(["bias_gelu"])]
    monkeypatch.setattr("kernels.bench.catalog.cases", lambda _: few)
    monkeypatch.setattr(torch, "device", lambda _: CPU)
    monkeypatch.setattr("kernels.bench.measure.compiled", lambda function, *_, **__: function)


def limbeck(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["limbeck", "kernels", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_bench_prints_targets_beside_measurements_and_writes_all(
    with_a_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "bench.json"
    assert limbeck(monkeypatch, "bench", "--out", out) == 3  # 1 ms is far from the roof of so few rows
    said = capsys.readouterr().out
    assert re.search(r"bias_gelu forward bf16 C=1536 +compile max-autotune +1\.0000 ms", said)
    lines = [line.split() for line in said.splitlines() if ">= 1x" in line]
    assert len(lines) == 4
    assert all(line[-2:] == ["1.00x", "yes"] for line in lines)
    assert len(json.loads(out.read_text())["cases"]) == 4


def test_tune_writes_what_the_kernels_read(
    with_a_gpu: None, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(searching, "TRY_RUNS", 2)
    copies = tmp_path / "copies"
    assert limbeck(monkeypatch, "tune", "--copy-to", copies) == 0
    entries = tuning.read("bias_gelu")
    assert {(entry.op, entry.bucket) for entry in entries} == {
        (f"bias_gelu {way}", f"C<={width}") for way in ("forward", "backward") for width in (2048, 4096)
    }
    assert entries[0].versions == {"torch": "2.15.0", "triton": "3.9.0", "driver": "580.65.06"}
    assert all(entry.gpu == "NVIDIA H200" for entry in entries)
    assert (copies / "bias_gelu.json").read_text() == (folder / "bias_gelu.json").read_text()
