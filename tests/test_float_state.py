"""A kernel leaves the floating-point state as it found it: every library in the process computes with it.

-ffast-math, for one, flushes denormals to zero from the moment a module is loaded.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from backends import small_cases_of
from float_state import REGISTERS, state, turned_over
from processes import answer

import fastnn
from fastnn import testing
from fastnn._contract import KERNELS

FAMILIES = sorted({kernel.family for kernel in KERNELS.values()})
#: Elements, enough for every kernel to use several threads.
LARGE = 2**18 + 2**12 + 19

BITS = [(name, what) for name, register in REGISTERS.items() for what in register.bits]
#: Upward rounding, and no denormals.
UNUSUAL = [(name, what) for name, what in BITS if "mask" not in what]
STATES = ([], UNUSUAL)


def check(function, case):
    """The usual state is kept, and so is an unusual one."""
    for changes in STATES:
        arguments = case.fresh()
        with turned_over(changes):
            before = state()
            testing.call(function, case.kernel, arguments, case.options)
            after = state()
        assert after == before, case.id


def test_kernels_keep_the_state(backend, dtype, kernel):
    for case in small_cases_of(kernel.name, dtype):
        check(backend.function(kernel), case)


@pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
def test_kernels_keep_the_state_with_threads(backend, kernel):
    symbols = testing.make_case(kernel).sizes
    length = round(LARGE ** (1 / max(len(symbols), 1))) + 1
    case = testing.make_case(kernel, np.float32, sizes=dict.fromkeys(symbols, length))
    with fastnn.num_threads(2):
        check(backend.function(kernel), case)


def test_imports_keep_the_state(backend):
    modules = ["fastnn", *(f"{backend.package}.{family}" for family in FAMILIES)]
    before, after = answer(
        f"import importlib, json, sys; sys.path.append({str(Path(__file__).parent)!r}); import float_state\n"
        "before = float_state.state()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([before, float_state.state()]))"
    )
    assert after == before


@pytest.mark.parametrize("change", BITS, ids=": ".join)
def test_a_change_is_noticed(change):
    before = state()
    with ExitStack() as stack, pytest.raises(AssertionError):
        check(lambda x: stack.enter_context(turned_over([change])), testing.make_case(KERNELS["relu"]))
    assert state() == before
