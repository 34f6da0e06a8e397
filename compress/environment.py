"""Where a run was made: versions, hardware, commit. Recorded so that a figure can be believed later."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What decides weights and answers; a stage is done again when one of these changes.
DECIDING = ("limbeck", "torch", "transformers", "onnxruntime")
EXPORTING = ("onnx", "onnxscript", "onnxslim")  # what decides a package besides
_RECORDED = (
    *DECIDING,
    *EXPORTING,
    "torchvision",
    "torch-pruning",
    "tokenizers",
    "pillow",
    "numpy",
    "scikit-learn",
    "bentoml",
)
# The instruction sets that int8 and bf16 speed depends on.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def versions(names: tuple[str, ...] = _RECORDED) -> dict[str, str]:
    """Installed versions; onnxruntime-gpu goes by the name of onnxruntime."""
    found = {name: _version(name) or _version(f"{name}-gpu") for name in names}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, the instruction sets that matter, and the GPU if there is one."""
    import torch

    info = _cpuinfo()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in info.get("flags", "").split()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with '+' when it was changed; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
