"""Compile kernels ahead of time, without a GPU, and read from the output what the hardware would be asked to do.

`triton.compile` needs no device; ptxas and cuobjdump come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHS = (80, 90, 100)  # A100, H100 and H200, B200
SHARED_LIMIT_BYTES = {
    80: 166_912,
    90: 232_448,
    100: 232_448,
}  # a block's most (CUDA C++ guide, technical specifications)
_LAUNCH = ("num_warps", "num_stages")
ALIGNMENT = [["tt.divisibility", 16]]  # what the launcher tells Triton of pointers and strides that are multiples of 16


@dataclass(frozen=True)
class Build:
    """One configuration of a kernel, as its launcher would ask for it.

    `signature` gives the types of the arguments in Triton's words ("*bf16", "i32", "fp32"), `constants` the values of
    the constexpr ones. Pointers count as aligned to 16 bytes, as torch's allocator gives
    them, unless named in `unaligned`.
    """

    name: str  # what a reader would call it: "distill_loss bf16 C=1000"
    kernel: Any  # the function that triton.jit made
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    vector_loads: bool = True  # at least one 128-bit load from global memory is expected
    mma: bool = False  # tensor core instructions are expected
    unaligned: tuple[str, ...] = ()
    divisible: tuple[str, ...] = field(default=())  # integer arguments that are multiples of 16
    may_spill: bool = False  # it must only compile
    oldest: int = 80  # architectures before it lack an instruction that this needs, and take the reference

    @classmethod
    def sized(
        cls,
        name: str,
        kernel: Any,
        signature: Mapping[str, str],
        shape: Mapping[str, Any],
        sizes: Mapping[str, int],
        **more: Any,
    ) -> Build:
        """A build with the sizes that a `kernels.tuning.Tunable` gives; `shape` has the other constants."""
        launch: dict[str, Any] = {key: value for key, value in sizes.items() if key in _LAUNCH}
        constants = {key: value for key, value in sizes.items() if key not in _LAUNCH}
        told = " ".join(f"{key}={value}" for key, value in sizes.items())
        return cls(f"{name} ({told})", kernel, signature, {**shape, **constants}, **launch, **more)


@dataclass(frozen=True)
class Resources:
    """What one build takes on one architecture."""

    build: str
    arch: int
    registers: int  # of a thread
    spilled_bytes: int  # of local memory a thread: registers that did not suffice
    shared_bytes: int  # of a block
    vector_loads: int  # 128-bit loads from global memory in the PTX: ld.global.v4.b32 and the like, cp.async.cg
    scalar_loads: int
    mma: int  # tensor core instructions (mma, wgmma, tcgen05)


def compile_for(build: Build, arch: int) -> Resources:
    """Compile `build` for compute capability `arch` (90 is sm_90). Raises Triton's own error where it fails."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {**build.signature, **dict.fromkeys(build.constants, "constexpr")}
    names = list(build.kernel.arg_names)
    signature = {name: types[name] for name in names}
    source = ASTSource(
        build.kernel,
        signature,
        {(names.index(name),): value for name, value in build.constants.items()},
        {(names.index(name),): ALIGNMENT for name in build.signature if _aligned(build, name)},
    )
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    ptx, usage = compiled.asm["ptx"], _resource_usage(compiled.asm["cubin"])
    vector = len(re.findall(r"ld\.global\S*\.v4\.[bfus]32|ld\.global\S*\.v2\.[bfus]64", ptx))
    return Resources(
        build=build.name,
        arch=arch,
        registers=usage["REG"],
        spilled_bytes=usage["LOCAL"] + usage["STACK"],
        shared_bytes=compiled.metadata.shared,
        vector_loads=vector + len(re.findall(r"cp\.async\.cg\.", ptx)),
        scalar_loads=len(re.findall(r"ld\.global", ptx)) - vector,
        mma=len(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)", ptx)),
    )


def complaints(build: Build, found: Resources) -> list[str]:
    """What is wrong with a build on an architecture; empty where nothing is."""
    said = []
    if found.spilled_bytes and not build.may_spill:
        said.append(f"spills {found.spilled_bytes} bytes a thread ({found.registers} registers)")
    if found.shared_bytes > SHARED_LIMIT_BYTES[found.arch]:
        said.append(
            f"asks for {found.shared_bytes} bytes of shared memory; a block has {SHARED_LIMIT_BYTES[found.arch]}"
        )
    if build.vector_loads and not found.vector_loads:
        said.append(f"loads from global memory one by one ({found.scalar_loads} scalar loads, none of 128 bits)")
    if build.mma and not found.mma:
        said.append("uses no tensor core instruction")
    return [f"{found.build} on sm_{found.arch} {what}" for what in said]


def _aligned(build: Build, name: str) -> bool:
    if build.signature[name].startswith("*"):
        return name not in build.unaligned
    return name in build.divisible


def _resource_usage(cubin: bytes) -> dict[str, int]:
    """Registers, stack and local memory of the one kernel in `cubin`, as NVIDIA's cuobjdump prints them."""
    import triton.backends.nvidia

    dump = Path(triton.backends.nvidia.__path__[0]) / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        said = subprocess.run([dump, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    usage = said[said.index("Function") :]
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
