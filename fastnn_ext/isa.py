"""The instruction sets that the Cython sources are compiled for.

One row is one build of every `.pyx`, in the folder of the row's name. `setup.py` reads the compiler flags, the selector
reads the processor features; each flag has its feature, so nothing is compiled in that was not asked of the CPU.
"""

from __future__ import annotations

import platform
from typing import NamedTuple


class Isa(NamedTuple):
    """An instruction set: where its build lives, how it is compiled, what the processor must have."""

    name: str
    machines: tuple[str, ...]
    flags: tuple[str, ...]
    msvc_flags: tuple[str, ...]
    features: tuple[str, ...]


X86_64 = ("x86_64", "amd64")
ARM64 = ("aarch64", "arm64")
_AVX2 = ("avx2", "fma", "bmi", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")


def _switches(features: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"-m{feature}" for feature in features)


#: Best first. The baseline needs no feature: SSE2 belongs to the x86-64 ABI and NEON to the arm64 one.
ISAS = (
    Isa("avx512", X86_64, (*_switches(_AVX512), "-mprefer-vector-width=512"), ("/arch:AVX512",), _AVX512),
    Isa("avx2", X86_64, _switches(_AVX2), ("/arch:AVX2",), _AVX2),
    Isa("baseline", (*X86_64, *ARM64), (), (), ()),
)


def isas_of(machine: str | None = None) -> tuple[Isa, ...]:
    """The rows that can be built for `machine` (this one by default), best first; none on an unknown machine."""
    machine = (machine or platform.machine()).lower()
    return tuple(isa for isa in ISAS if machine in isa.machines)
