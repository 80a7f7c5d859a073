"""The floating-point state of the calling thread: rounding, treatment of denormals, masks of exceptions."""

import ctypes
import platform
import sys
from contextlib import contextmanager
from typing import Any, NamedTuple


class Register(NamedTuple):
    """Where the fenv_t of the C library keeps a register, which bits are control, and some of them.

    Bits that are not control are flags of exceptions that have occurred, which any arithmetic may raise.
    """

    place: int
    kind: Any
    control: int
    bits: dict[str, int]


#: As glibc and musl have it. Elsewhere only arithmetic tells of the state.
REGISTERS = {
    ("linux", "x86_64"): {
        "x87": Register(0, ctypes.c_uint16, 0x0F3F, {"rounding": 0x800, "mask of overflow": 0x8}),
        "MXCSR": Register(
            28,
            ctypes.c_uint32,
            0xFFC0,
            {
                "rounding": 0x4000,
                "flush to zero": 0x8000,
                "denormals are zero": 0x40,
                "mask of overflow": 0x400,
            },
        ),
    },
    ("linux", "aarch64"): {
        "FPCR": Register(
            0, ctypes.c_uint32, 0xFFFF_FFFF, {"rounding": 0x40_0000, "flush to zero": 0x100_0000}
        )
    },
}.get((sys.platform, platform.machine()), {})


def _environment():
    """What fegetenv gives, in more room than any fenv_t takes."""
    memory = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).fegetenv(memory)
    return memory


def state():
    """The control bits of the registers known here, and what arithmetic shows of them anywhere."""
    one, denormal, normal, most_of_a_bit = 1.0, 5e-324, 2.2250738585072014e-308, 1.5 * 2**-53
    found = {
        "denormals read": denormal * one,
        "denormals written": normal * 0.5,
        "rounding": (one + most_of_a_bit, -one - most_of_a_bit),
    }
    memory = _environment() if REGISTERS else None
    for name, register in REGISTERS.items():
        found[name] = hex(register.kind.from_buffer(memory, register.place).value & register.control)
    return found


@contextmanager
def turned_over(changes):
    """Some bits, (register, what) each, are turned over until the end."""
    before, memory = (_environment(), _environment()) if changes else (None, None)
    for name, what in changes:
        register = REGISTERS[name]
        register.kind.from_buffer(memory, register.place).value ^= register.bits[what]
    if changes:
        ctypes.CDLL(None).fesetenv(memory)
    try:
        yield
    finally:
        if changes:
            ctypes.CDLL(None).fesetenv(before)
