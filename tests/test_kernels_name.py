"""Hugging Face has a package `kernels` too, which transformers imports where it finds one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import kernels

ROOT = Path(__file__).resolve().parent.parent


def test_our_version_is_the_projects_and_too_old_to_be_taken_for_theirs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert kernels.__version__ == project["version"]
    assert tuple(map(int, kernels.__version__.split(".")[:2])) < (0, 9)


def test_transformers_imports_beside_our_kernels() -> None:
    check = "import kernels, transformers; from transformers import Trainer; print(kernels.__file__)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "kernels/__init__.py")
