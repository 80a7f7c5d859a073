"""Compiled kernels read nothing outside an argument: arrays end where readable memory ends, or begin there.

A read beyond is a crash of the process, so each instruction set runs in a process of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect to hide pages")

CHILD = '''
import ctypes, mmap, sys
import numpy as np
from backends import known_backends
from fastnn import testing
from fastnn._contract import KERNELS

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def at_the_edge(array, side):
    """A copy of the array against an unreadable page behind it or before it."""
    pages = -(-array.nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for page in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    offset = (pages - 1) * PAGE - array.nbytes if side == "behind" else PAGE
    copy = np.ndarray(array.shape, array.dtype, memory, offset)
    copy[...] = array
    return copy

def large_cases(kernel, dtype):
    """Convolutions that are computed in tiles."""
    if kernel.name in ("conv2d", "conv2d_backward"):
        sizes = {"n": 2, "c": 37, "h": 19, "w": 23, "k": 41, "r": 3, "s": 3}
        for layout in ("NCHW", "NHWC"):
            yield testing.make_case(kernel, dtype, sizes=sizes, options={"padding": 1, "layout": layout})

backend = known_backends()[sys.argv[1]]
for kernel in KERNELS.values():
    function = backend.function(kernel)
    for dtype in (np.float32, np.float64):
        for case in [*testing.cases(kernel, dtype, sizes=(9, 33)), *large_cases(kernel, dtype)]:
            for side in ("behind", "before"):
                print(case.id, side, flush=True)
                arrays = {name: at_the_edge(case.arguments[name], side) for name in case.arrays}
                testing.call(function, kernel, {**case.arguments, **arrays}, case.options)
                del arrays
'''


@pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
def test_reads_stay_inside(backend):
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, backend.id],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    last = finished.stdout.strip().rpartition("\n")[2]
    assert finished.returncode == 0, f"exit status {finished.returncode} in {last}\n{finished.stderr}"
