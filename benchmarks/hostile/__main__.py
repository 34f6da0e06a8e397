"""python -m benchmarks.hostile RUN-OR-PACKAGE: serves it, attacks it, and says what came of it.

2,000 images (for a model of images), 2,000 JSON bodies, 200 forms, 300 conversations below HTTP, and 100 good and 100
bad requests to each operation of the OpenAPI document. Exit code 1: something was not as promised.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.hostile.attack import Plan, Target, attack
from serve.launch import start
from serve.locate import find_package
from serve.package import load_package


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("target", type=Path, nargs="+", help="a run, or a model package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=int, default=1, help="one in so many of the requests")
    parser.add_argument("--out", type=Path, help="a JSON file for the findings")
    asked = parser.parse_args()
    whole = Plan()
    plan = Plan(
        seed=asked.seed,
        **{name: getattr(whole, name) // asked.share for name in ("images", "documents", "forms", "talks", "examples")},
    )
    findings = []
    for target in asked.target:
        package = load_package(find_package(target))
        began = time.monotonic()
        with start(package.path) as server:
            found = attack(Target(server.port, server.pid, server.log, package.manifest.task), plan)
        findings.append({"target": str(target), "seconds": round(time.monotonic() - began), **found})
        print(json.dumps(findings[-1], indent=2), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(findings, indent=2) + "\n")
    return 1 if any(found["complaints"] for found in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
