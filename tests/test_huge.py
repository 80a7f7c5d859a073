"""Sizes beyond any memory, and strides beyond any array: refused, or ignored where nothing depends on them.

Arrays that are huge need no memory here: a stride of 0 repeats one element, and where a kernel is to walk through more
than 2^31 elements, the same pages stand behind all of them.
"""

import ctypes
import mmap
import os
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from backends import runnable_isas
from numpy.lib.stride_tricks import as_strided

from fastnn import testing

#: One instruction set stands for all: they share their counters.
one_compiled = pytest.mark.backends(having=lambda backend: backend.id == f"cython-{runnable_isas()[0]}")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits and mappings of Linux")

#: Past the range of int; past the address space; bytes past the range of size_t for anything but one array of these.
HUGE = (2**31, 2**48, 2**58)
#: Bytes that allocations may take before they fail.
ALLOWANCE = 2**29


@contextmanager
def little_memory():
    """Allocations of huge arrays fail at once, whatever the machine has."""
    import resource

    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * mmap.PAGESIZE
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ALLOWANCE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def grown(kernel, dtype):
    """Cases in which one symbol is huge for all arguments that have it, or for one of them alone."""
    for symbol in testing.make_case(kernel).sizes:
        case, other = (testing.make_case(kernel, dtype, sizes={symbol: length}) for length in (6, 12))
        axes = {
            name: np.flatnonzero(np.not_equal(case.arguments[name].shape, other.arguments[name].shape))
            for name in case.arrays
        }
        names = [name for name in case.arrays if axes[name].size]
        for length in HUGE:
            for group in [names, *([name] for name in names)]:
                try:
                    changes = {name: repeated(case.arguments[name], axes[name], length) for name in group}
                except ValueError:  # more than NumPy can say
                    continue
                yield f"{symbol} = {length} in {group}", case, changes


def repeated(array, axes, length):
    """The first of the array along `axes`, `length` times; as writable as any array."""
    first = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
    shape = [length if axis in axes else size for axis, size in enumerate(array.shape)]
    return as_strided(first, shape, np.broadcast_to(first, shape).strides)


def outcome(function, case, changes, **options):
    """The class of the error, which is one of arguments or that there is not as much memory."""
    with pytest.raises((*testing.ERRORS, MemoryError)) as raised:
        testing.call(function, case.kernel, case.fresh() | changes, {**case.options, **options})
    return MemoryError if isinstance(raised.value, MemoryError) else type(raised.value)


@linux
def test_huge_arguments_are_refused(kernel, backend):
    function = backend.function(kernel)
    tried = 0
    with little_memory():
        for what, case, changes in grown(kernel, np.float32):
            assert outcome(function, case, changes) is outcome(kernel.definition, case, changes), what
            tried += 1
    assert tried


@linux
@pytest.mark.kernels(having=lambda kernel: kernel.has_out)
def test_a_huge_out_is_refused(kernel, backend):
    case = testing.make_case(kernel, np.float32)
    for place in testing.out_places(case):
        right = np.ones(case.expected[place].value.shape, np.float32)
        for axis in range(right.ndim):
            out = testing.as_out(case, {place: repeated(right, (axis,), HUGE[0])})
            with little_memory():
                assert outcome(backend.function(kernel), case, {}, out=out) is ValueError


def of_absurd_strides(array):
    """The same array with strides that no memory has along axes that no stride matters for."""
    absurd = [
        -(2**62) + 3 * axis if length < 2 or array.size == 0 else stride
        for axis, (length, stride) in enumerate(zip(array.shape, array.strides, strict=True))
    ]
    return as_strided(array, array.shape, absurd)


def test_strides_of_single_elements_do_not_matter(kernel, dtype, backend):
    symbols = testing.make_case(kernel).sizes
    for sizes in [{symbol: length} for symbol in symbols for length in (0, 1)] + [dict.fromkeys(symbols, 1)]:
        case = testing.make_case(kernel, dtype, sizes=sizes)
        changes = dict.fromkeys(case.arrays, of_absurd_strides)
        testing.check_changed(backend.function(kernel), case, "absurd strides", changes, case.expected)


# ----------------------------------------------------------------------------------------------------
# More than 2^31 elements

CHUNK = 2**25
#: A plane of more than 2^31 elements.
HEIGHT, WIDTH = 46_400, 46_360
LENGTH = HEIGHT * WIDTH


class Mapped:
    """Float32 numbers of which all but the last chunk are the same memory, again and again."""

    def __init__(self, value, last):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        fixed, no_reserve = 0x10, 0x4000
        chunks = -(-4 * LENGTH // CHUNK)
        file = os.memfd_create("repeated")
        os.truncate(file, 2 * CHUNK)
        room = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
        start = libc.mmap(None, chunks * CHUNK, 0, room, -1, 0)
        for place in range(0, chunks * CHUNK, CHUNK):
            which = CHUNK if place == (chunks - 1) * CHUNK else 0
            access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | fixed
            assert libc.mmap(start + place, CHUNK, access, kind, file, which) == start + place
        os.close(file)
        self.close = lambda: libc.munmap(start, chunks * CHUNK)
        self.array = np.ctypeslib.as_array((ctypes.c_float * LENGTH).from_address(start))
        self.plane = self.array.reshape(1, 1, HEIGHT, WIDTH)
        self.last = self.array[(chunks - 1) * CHUNK // 4 :]
        self.array[: CHUNK // 4] = value
        self.last[:] = last


@pytest.fixture(scope="module")
def mapped():
    """An array to read, and one to write to."""
    both = Mapped(0, 3), Mapped(7, 7)
    yield both
    for one in both:
        one.close()


def full(value, *shape):
    return np.full(shape, value, np.float32)


#: The windows of 40 x 40 in the plane.
POOLED = 1, 1, HEIGHT // 40, WIDTH // 40
#: A call with a huge array to read and one to write, and what is then at the end of the latter.
WRITERS = {
    "relu": (lambda b, x, y: b.relu(x.array, out=y.array), 3),
    "tanh_backward": (lambda b, x, y: b.tanh_backward(x.array, x.array, out=y.array), -24),
    "softmax": (lambda b, x, y: b.softmax(x.plane, out=y.plane), 1 / WIDTH),
    "sgd_step": (lambda b, x, y: b.sgd_step(y.array, x.array, lr=0.5), 5.5),
    "linear": (lambda b, x, y: b.linear(full(3, HEIGHT, 2), full(1, WIDTH, 2), out=y.plane[0, 0]), 6),
    "conv2d": (
        lambda b, x, y: b.conv2d(
            full(1, 1, 1, 2, 2),
            full(1, 1, 1, 1, 1),
            full(5, 1),
            padding=(HEIGHT // 2 - 1, WIDTH // 2 - 1),
            out=y.plane,
        ),
        5,
    ),
    "avg_pool2d_backward": (
        lambda b, x, y: b.avg_pool2d_backward(full(1, *POOLED), y.plane.shape, 40, out=y.plane),
        1 / 1600,
    ),
}
#: Less than the last chunk.
SHIFT = 2**21
#: A call with a huge array to read, and what is then at the end of the result.
READERS = {
    "linear": (
        lambda b, x: b.linear(x.array[None], x.array[None]),
        lambda x: 9 * x.last.size,
    ),
    "mse_loss": (
        lambda b, x: b.mse_loss(x.array[:-SHIFT], x.array[SHIFT:]),
        lambda x: 9 * SHIFT / (LENGTH - SHIFT),
    ),
    "conv2d": (lambda b, x: b.conv2d(x.plane, full(1, 1, 1, 40, 40), stride=40), lambda x: 4800),
    "max_pool2d": (
        lambda b, x: x.array[b.max_pool2d(x.plane, 40, return_indices=True)[1]],
        lambda x: 3,
    ),
}


@linux
@one_compiled
@pytest.mark.parametrize("name", WRITERS)
def test_more_elements_than_int_can_count_are_written(name, backend, mapped):
    x, y = mapped
    call, expected = WRITERS[name]
    y.last[:] = 7
    call(backend, x, y)
    np.testing.assert_allclose(y.last[WIDTH:], expected, rtol=1e-6)


@linux
@one_compiled
@pytest.mark.parametrize("name", READERS)
def test_more_elements_than_int_can_count_are_read(name, backend, mapped):
    call, expected = READERS[name]
    result = np.ravel(call(backend, mapped[0]))
    np.testing.assert_allclose(result[-1], expected(mapped[0]), rtol=1e-3)
