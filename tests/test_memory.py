"""Compiled kernels read nothing outside an argument, and the memory that they need besides is bounded.

For the first, arrays end where readable memory ends, or begin there. A read beyond is a crash of the process, and what
a process needs at most can be asked only once, so each instruction set runs in processes of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="needs mprotect to hide pages, /proc to see what a process takes",
)

READS = '''
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
    """Convolutions that are computed in tiles, as patches, and with channels side by side."""
    forms = (
        ({"n": 2, "c": 37, "h": 19, "w": 23, "k": 41, "r": 3, "s": 3}, {"padding": 1}),
        ({"n": 2, "c": 37, "h": 19, "w": 23, "k": 97, "r": 3, "s": 3}, {"padding": 1, "stride": 2}),
        ({"n": 2, "c": 3, "h": 21, "w": 27, "k": 65, "r": 4, "s": 5}, {"stride": 5}),
        ({"n": 5, "c": 8, "h": 8, "w": 9, "k": 70, "r": 7, "s": 7}, {}),
        ({"n": 3, "c": 1, "h": 19, "w": 23, "k": 1, "r": 3, "s": 3}, {"padding": 1, "stride": 2, "groups": 21}),
        ({"n": 3, "c": 1, "h": 19, "w": 23, "k": 1, "r": 7, "s": 7}, {"padding": 3, "groups": 21}),
    )
    if kernel.name in ("conv2d", "conv2d_backward"):
        for sizes, options in forms:
            for layout in ("NCHW", "NHWC"):
                yield testing.make_case(kernel, dtype, sizes=sizes, options={**options, "layout": layout})

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


# Products and convolutions of each form whose workspace grows with the work, until blocks bound it. The arrays are
# there, written, before the call; each case has a process, whose workspace is empty.
WORKSPACE = '''
import os, sys
import numpy as np
from backends import known_backends
from fastnn._contract import KERNELS

backend = known_backends()[sys.argv[1]]
LIMIT = 8  # MiB, and what Python and its allocator need
OTHERS = 0.5

def memory(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)

def growth(call):
    """MiB that the process grows by at most during a call, code aside; its largest size began anew at its fork."""
    before, code = memory("VmRSS"), memory("RssFile")
    call()
    return memory("VmHWM") - before - (memory("RssFile") - code)

def array(*shape):
    return np.linspace(-1, 1, np.prod(shape), dtype=dtype).reshape(shape)

def product(n, k, m):
    x, weight, y = array(n, k), array(m, k), array(n, m)
    yield "linear", (x, weight), {"out": y.copy()}
    yield "linear_backward", (y, x, weight), {"out": (x.copy(), weight.copy(), array(m))}

def convolution(layout, n, channels, side, kernels, window, stride, groups):
    def image(channels, side):
        return array(n, channels, side, side) if layout == "NCHW" else array(n, side, side, channels)
    per_group = channels // groups
    shape = (per_group, window, window) if layout == "NCHW" else (window, window, per_group)
    x, weight = image(channels, side), array(kernels, *shape)
    y = image(kernels, (side - 1) // stride + 1)
    options = {"stride": stride, "padding": window // 2, "groups": groups, "layout": layout}
    yield "conv2d", (x, weight), {**options, "out": y.copy()}
    outs = x.copy(), weight.copy(), array(kernels)
    yield "conv2d_backward", (y, x, weight), {**options, "out": outs}

def calls():
    yield from product(512, 2048, 2048)
    yield from product(48, 2048, 4096)
    yield from product(3000, 2048, 2048)
    for layout in ("NCHW", "NHWC"):
        for sizes in (
            (4, 128, 56, 128, 3, 1, 1), (1, 512, 14, 512, 3, 1, 1),                               # Winograd's form
            (1, 3, 448, 64, 7, 2, 1), (1, 64, 112, 64, 7, 2, 1), (1, 64, 256, 16, 5, 1, 1),       # direct
            (1, 16, 500, 16, 3, 1, 4), (1, 256, 112, 256, 3, 1, 256), (1, 256, 56, 512, 1, 1, 1), # groups, pixels
            (2, 128, 56, 128, 3, 2, 1), (300, 1, 4, 3000, 3, 1, 1), (60, 512, 7, 512, 3, 1, 1),   # patches
            (4, 64, 112, 64, 3, 2, 64), (40, 64, 28, 64, 7, 1, 64),                               # side by side
            (1, 256, 28, 1024, 3, 2, 1), (1, 64, 28, 64, 31, 1, 1), (1, 512, 14, 512, 31, 1, 512), # large
        ):
            yield from convolution(layout, *sizes)

for dtype in (np.float32, np.float64):
    for name, arguments, options in calls():
        print(name, np.dtype(dtype), [a.shape for a in arguments], options.get("layout"), end=" ", flush=True)
        child = os.fork()
        if child == 0:
            needed = growth(lambda: backend.function(KERNELS[name])(*arguments, **options))
            print(f"{needed:.1f} MiB", flush=True)
            os._exit(needed > LIMIT + OTHERS)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

# What a thread keeps of all convolutions one after the other: of each slot the largest.
dtype, kept = np.float32, 0
for name, arguments, options in calls():
    if name.startswith("conv2d"):
        before, code = memory("VmRSS"), memory("RssFile")
        backend.function(KERNELS[name])(*arguments, **options)
        kept += memory("VmRSS") - before - (memory("RssFile") - code)
        print(name, f"{kept:.1f} MiB are kept", flush=True)
assert LIMIT < kept < 2.5 * LIMIT
'''


def run(script: str, backend: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", script, backend],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            "FASTNN_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
        },  # no leftovers used again
    )
    last = finished.stdout.strip().rpartition("\n")[2]
    assert finished.returncode == 0, f"exit status {finished.returncode} in {last}\n{finished.stderr}"


@pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
def test_reads_stay_inside(backend):
    run(READS, backend.id)


@pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
def test_workspace_is_bounded(backend):
    run(WORKSPACE, backend.id)
