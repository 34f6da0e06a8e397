from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import colored, tiny_package

from compress.measure.memory import measure_memory, peak_rss_mb
from serve.errors import LimbeckError


def test_peak_memory_is_that_of_the_child_alone(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package")
    ballast = bytearray(1_000_000_000)  # of this process, not of the variant
    ballast[::4096] = b"x" * len(ballast[::4096])
    items = [colored(200, 0, 0)] * 3
    result = measure_memory({"tiny": ("onnxruntime", package.path)}, items)
    assert 20 < result.peak_rss_mb["tiny"] < 600


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    package = tiny_package(tmp_path / "package")
    manifest = json.loads((package.path / "manifest.json").read_text())
    (package.path / "manifest.json").write_text(json.dumps({**manifest, "id": "0" * 16}))
    with pytest.raises(LimbeckError, match=r"measuring the memory of .* failed: .*says id 0000"):
        peak_rss_mb("onnxruntime", package.path, [colored(1, 1, 1)])
