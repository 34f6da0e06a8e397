"""Peak memory of a variant, in a process of its own that loads it as a server would and answers a few requests.

python -m compress.measure.memory torch|onnxruntime FOLDER < items as base64 lines
"""

from __future__ import annotations

import base64
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serve.errors import LimbeckError


class MemoryResult(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_rss_mb: dict[str, float]


def measure_memory(variants: Mapping[str, tuple[str, Path]], items: Sequence[bytes]) -> MemoryResult:
    """Peak memory of each variant, given as (runtime, folder)."""
    return MemoryResult(
        peak_rss_mb={name: peak_rss_mb(runtime, folder, items) for name, (runtime, folder) in variants.items()}
    )


def peak_rss_mb(runtime: str, folder: Path, items: Sequence[bytes]) -> float:
    """Largest resident memory in MB (1,000,000 bytes) while answering `items` one by one, interpreter included."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "compress.measure.memory", runtime, str(folder)],
        input=b"\n".join(base64.b64encode(item) for item in items),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise LimbeckError(
            f"measuring the memory of {folder} failed: {' '.join(last) or f'status {done.returncode}'}",
            "is there enough memory? A package that changed since is made again by the same command",
        )
    return float(done.stdout)


def _child(runtime: str, folder: Path) -> float:
    from serve.runner import Runner, scores  # torch stays out of the process that does not need it

    runner: Runner
    if runtime == "torch":
        from train.classifier import load_classifier
        from train.torch_runner import TorchRunner

        runner = TorchRunner(load_classifier(folder))
    else:
        from serve.predictor import Predictor

        runner = Predictor.load(folder, threads=1)
    for line in sys.stdin.buffer:
        scores(runner, [base64.b64decode(line)])
    return _peak_bytes() / 1e6


def _peak_bytes() -> int:
    """The high-water mark of this program. Linux's ru_maxrss would count the parent's pages from before exec too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(_child(sys.argv[1], Path(sys.argv[2])))
