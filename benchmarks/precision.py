"""What bf16 makes of the time of an update, on this machine: `fit.precision = "bf16"` against "fp32", in turn.

    python -m benchmarks.precision [--rounds 5] [--out FILE] [mnist cifar10 sst2]

Both train the recipe's teacher for an epoch on the same real items. Needs ${LIMBECK_DATA}.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.training import in_turn, measure_each, our_epoch, workload


def measure(name: str, rounds: int) -> dict[str, object]:
    """Medians of both in milliseconds an update, and the median and range of how many times faster bf16 is."""
    work = workload(name)

    def epoch(precision: str) -> Callable[[], float]:
        config = work.config.model_copy(update={"precision": precision})
        return lambda: our_epoch(work.new(), config, work.train, work.validation)

    full, low = in_turn([epoch("fp32"), epoch("bf16")], rounds)
    ratios, updates = full / low, -(-len(work.train) // work.config.batch_size)
    return {
        "recipe": name,
        "model": work.model,
        "batch": work.config.batch_size,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "fp32_ms": round(1000 * float(np.median(full)) / updates, 1),
        "bf16_ms": round(1000 * float(np.median(low)) / updates, 1),
        "bf16_times_faster": round(float(np.median(ratios)), 2),
        "range": [round(float(ratios.min()), 2), round(float(ratios.max()), 2)],
    }


if __name__ == "__main__":
    measure_each(__doc__, measure, rounds=5)
