"""End to end: one step of distilling MiniLM, plain, with kernels, and through torch.compile, on an NVIDIA GPU.

    python -m benchmarks.kernels_step [--seconds 55] [--choose] [--out step.json]

A step is what training does for a batch: the teacher's answers, the student's, the loss of soft targets and labels, the
gradients, clipping and AdamW, in bf16. Weights and token ids are random: a step takes no longer for others. Every way
must give the plain way's loss and gradients before it is timed, and all take turns, so that a GPU that slows down slows
all. Exit code 2 without a GPU, 1 where a way gives another loss.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from kernels.fuse import FuseOptions, fuse
from kernels.ledger import Ledger
from kernels.machine import clocks, this_machine
from kernels.runtime import why_not
from serve.manifest import TextPreprocessing
from train.classifier import Classifier, ClassifierSpec
from train.distill import DistillConfig
from train.distill.lesson import Lesson
from train.draft import NetworkSpec
from train.fit_config import FitConfig
from train.fused import losses_by_kernel, rehearsing
from train.losses import LabelLoss
from train.models.hf_text import TextTransformer
from train.optimizers import new_optimizer

WAYS = ("eager", "fused", "compiled", "compiled and fused")
WARM_UP, ROUNDS = 5, 100
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of the loss and of the norm of the gradient
_LABELS = ("negative", "positive")
ALL = FuseOptions(force=True)  # every site that is right: to choose would take longer than the steps


@dataclass(frozen=True)
class Size:
    """A teacher and a student of some of its layers, and a batch; as they stand, MiniLM-L6 and half of it."""

    batch: int = 128
    length: int = 64  # tokens of each text
    hidden: int = 384
    heads: int = 12
    ffn: int = 1536
    layers: int = 6
    student_layers: int = 3
    vocabulary: int = 30522
    dropout: float = 0.1


@dataclass
class Way:
    """One way to take the step, and what was found of it."""

    name: str
    loss: float | None = None
    gradient: float | None = None  # its norm
    wrong: str = ""  # why it is not timed
    times_ms: list[float] = field(default_factory=list)
    ledger: Ledger | None = None
    step: Callable[[], Any] | None = None


def measure(
    size: Size,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    seconds: float = 55.0,
    rounds: int = ROUNDS,
    options: FuseOptions = ALL,
    backend: str = "inductor",
    after_each: Callable[[Sequence[Way]], None] = lambda ways: None,
) -> list[Way]:
    """Each way with the times of its steps; ways for which no time is left are named in `wrong`.

    `options` are those of `fuse`, whose dtype and `compiled` follow from the way. Once a way is ready all so far are
    timed again and `after_each` gets them: to compile takes long, and may be cut short.
    """
    until = time.monotonic() + seconds
    torch.manual_seed(0)
    teacher, student = (_classifier(size, layers).to(device) for layers in (size.layers, size.student_layers))
    ids = torch.randint(5, size.vocabulary, (size.batch, size.length), device=device)
    labels = torch.randint(len(_LABELS), (size.batch,), device=device)
    ways = [Way(name, wrong="no time was left for it") for name in WAYS]
    for way in ways:
        if time.monotonic() > until - 0.5 * seconds and way is not ways[0]:
            break
        way.wrong = ""
        _set_up(way, copy.deepcopy(student), teacher, (ids, labels), dtype, options, backend)
        _compare(way, ways[0], TOLERANCE[dtype])
        _take_turns([way for way in ways if not way.wrong], device, rounds, until)
        after_each(ways)
    torch.compiler.reset()
    return ways


def report(ways: Sequence[Way], size: Size, dtype: torch.dtype) -> dict[str, Any]:
    """What was found, to be written as JSON; ratios are of medians, over eager and over torch.compile."""
    medians = {way.name: statistics.median(way.times_ms) for way in ways if way.times_ms}
    rows = []
    for way in ways:
        median = medians.get(way.name)
        rows.append(
            {
                "way": way.name,
                "median_ms": median,
                "runs": len(way.times_ms),
                "times_as_fast_as_eager": _ratio(medians.get("eager"), median),
                "times_as_fast_as_compiled": _ratio(medians.get("compiled"), median),
                "loss": way.loss,
                "gradient_norm": way.gradient,
                "wrong": way.wrong,
                "ledger": None if way.ledger is None else asdict(way.ledger),
            }
        )
    where = {"machine": asdict(this_machine()), "clocks": clocks()}
    return {"schema": 1, **where, "size": asdict(size), "precision": str(dtype).removeprefix("torch."), "ways": rows}


def table(content: dict[str, Any]) -> str:
    """The report as lines of text."""
    lines = [f"{'a step of distilling MiniLM':<28}{'median':>12}{'over eager':>12}{'over compile':>14}"]
    for row in content["ways"]:
        cells = [_cell(row["median_ms"], " ms"), _cell(row["times_as_fast_as_eager"], "x")]
        cells.append(_cell(row["times_as_fast_as_compiled"], "x"))
        lines.append(f"{row['way']:<28}{cells[0]:>12}{cells[1]:>12}{cells[2]:>14}  {row['wrong']}".rstrip())
    return "\n".join(lines)


def _classifier(size: Size, layers: int) -> Classifier:
    """A BERT of random weights; it has two labels if nothing else is said."""
    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_attention_heads=size.heads,
        num_hidden_layers=layers,
        intermediate_size=size.ffn,
        hidden_dropout_prob=size.dropout,
        attention_probs_dropout_prob=size.dropout,
    )
    spec = ClassifierSpec(
        model="random",
        network=NetworkSpec(source="transformers", name="bert"),
        labels=_LABELS,
        preprocessing=TextPreprocessing(max_length=max(size.length, 2), pad_id=0),
    )
    return Classifier(spec, TextTransformer(AutoModelForSequenceClassification.from_config(config)), {})


def _set_up(
    way: Way,
    student: Classifier,
    teacher: Classifier,
    batch: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
    options: FuseOptions,
    backend: str,
) -> None:
    """Make the step of a way, and take the loss and gradient of its first, without dropout."""
    ids, labels = batch
    autocast = None if dtype == torch.float32 else dtype
    with_kernels, compiled = "fused" in way.name, "compiled" in way.name
    if with_kernels:
        chosen = FuseOptions(autocast, True, compiled, options.timer, options.force, options.kinds)
        way.ledger = fuse(student, (ids,), chosen)
    if compiled:
        student.network.compile(backend=backend)
    config = FitConfig(learning_rate=5e-5)
    optimizer = new_optimizer(config, student, {})
    label_loss = LabelLoss(config, _LABELS, np.arange(len(_LABELS)))
    lesson = Lesson(student, teacher, DistillConfig(temperature=2.0, alpha=0.5))

    def loss() -> torch.Tensor:
        """As in training, where logits leave autocast in fp32."""
        with torch.autocast(ids.device.type, dtype=autocast, enabled=autocast is not None):
            taught, logits = lesson.answers(ids), student(ids)
        return lesson.loss(logits.float(), taught, ids, labels, label_loss) / len(labels)

    def forwards_and_backwards() -> torch.Tensor:
        with losses_by_kernel(() if way.ledger is None else (each.site for each in way.ledger.losses if each.kept)):
            total = loss()
            total.backward()
        return total.detach()

    def step() -> None:
        forwards_and_backwards()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    student.eval()
    if way.ledger is not None:
        with torch.no_grad(), rehearsing(options) as rehearsal:
            loss()
        way.ledger = replace(way.ledger, losses=rehearsal.entries)
    way.loss = float(forwards_and_backwards())
    way.gradient = float(torch.nn.utils.get_total_norm(p.grad for p in student.parameters() if p.grad is not None))
    optimizer.zero_grad()
    student.train()
    way.step = step


def _compare(way: Way, plain: Way, tolerance: float) -> None:
    """Say what is wrong with a way that gives another loss or gradient than the plain one."""
    for name in ("gradient", "loss"):  # what is said is of the loss, where both are off
        found, expected = getattr(way, name), getattr(plain, name)
        if not abs(found - expected) <= tolerance * abs(expected):  # also where it is no number
            way.wrong = f"its {name} is {found:.6g}, and the plain way's {expected:.6g}"


def _take_turns(ways: Sequence[Way], device: torch.device, rounds: int, until: float) -> None:
    """Time the ways in turn, each a step, for so many rounds or until then; at least one round. Earlier times go."""
    for way in ways:
        way.times_ms.clear()
        for _ in range(WARM_UP if rounds > WARM_UP else 1):
            assert way.step is not None
            way.step()
    for at in range(rounds):
        if at and time.monotonic() > until:
            return
        for way in ways[at % len(ways) :] + ways[: at % len(ways)]:  # type: ignore[operator]  # lists
            assert way.step is not None
            way.times_ms.append(_milliseconds(way.step, device))


def _milliseconds(step: Callable[[], Any], device: torch.device) -> float:
    """Of one step, with what the host does: the device is waited for on both sides."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - begun)


def _ratio(of: float | None, to: float | None) -> float | None:
    return None if of is None or to is None else of / to


def _cell(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.2f}{unit}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--choose", action="store_true", help="as training does: only what is faster, timed first")
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = why_not(device)
    if reason is not None:
        print(f"nothing can be measured here: {reason}", file=sys.stderr)
        return 2
    size, dtype = Size(), torch.bfloat16

    def save(ways: Sequence[Way]) -> None:
        if chosen.out is not None:
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text(json.dumps(report(ways, size, dtype), indent=1) + "\n")

    options = FuseOptions() if chosen.choose else ALL
    ways = measure(size, device, dtype, chosen.seconds, options=options, after_each=save)
    print(table(report(ways, size, dtype)))
    for way in ways:
        if way.ledger is not None:
            print(f"{way.name}: {way.ledger.line()}")
    return 1 if any(way.wrong.startswith("its ") for way in ways) else 0


if __name__ == "__main__":
    sys.exit(main())
