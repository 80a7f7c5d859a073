"""The worker threads: the same bits for any number of them, forks, signals, and how many there are.

What forks or is interrupted is a fresh process with a time limit: its failure is a hang.
"""

import ctypes
import importlib
import platform
import sys
import threading
import time
from functools import lru_cache
from itertools import chain

import numpy as np
import pytest
from backends import runnable_isas
from processes import answer, complaint, python

import fastnn
from fastnn import _threads, testing
from fastnn._contract import KERNELS

COUNTS = (2, 4)
#: Elements, enough for every kernel to use several threads.
LARGE = 2**18 + 2**12 + 19

compiled = pytest.mark.skipif(_threads._pool.__class__ is _threads._NoPool, reason="no kernel is compiled")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")
two_processors = pytest.mark.skipif(
    not sys.platform.startswith("linux") or _threads._affinity() < 2,
    reason="needs an affinity with two processors",
)
of_cython = pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))


@pytest.fixture(autouse=True)
def restored():
    """The number of threads is as before after each test."""
    before = fastnn.get_num_threads()
    yield
    fastnn.set_num_threads(before)


def bits(result):
    return [one.tobytes() for one in (result if isinstance(result, tuple) else (result,)) if one is not None]


def with_threads(count, function, *arguments, **options):
    with fastnn.num_threads(count):
        return bits(function(*arguments, **options))


# ----------------------------------------------------------------------------------------------------
# Results


@of_cython
def test_every_kernel_has_the_same_bits(backend, dtype, kernel):
    small = testing.make_case(kernel, dtype)
    length = round(LARGE ** (1 / max(len(small.sizes), 1))) + 1
    case = testing.make_case(kernel, dtype, sizes=dict.fromkeys(small.sizes, length))

    def run():
        return [
            None if value is None else value.tobytes()
            for _, value in testing.run(backend.function(kernel), case)
        ]

    with fastnn.num_threads(1):
        alone = run()
    for count in COUNTS:
        with fastnn.num_threads(count):
            assert run() == alone, count
    if dtype == np.float32:  # in float64 the definition's own sums are as far off where they cancel
        with fastnn.num_threads(4):
            testing.check_parity(backend.function(kernel), case)


CONVOLUTIONS = {
    "images": ({"n": 6, "c": 16, "h": 26, "w": 26, "k": 24, "r": 3, "s": 3}, {}),
    "one image": ({"n": 1, "c": 16, "h": 40, "w": 40, "k": 70, "r": 3, "s": 3}, {}),
    "images of few channels": ({"n": 23, "c": 3, "h": 24, "w": 24, "k": 6, "r": 5, "s": 5}, {}),
    "strides and groups": (
        {"n": 5, "c": 8, "h": 35, "w": 35, "k": 16, "r": 5, "s": 5},
        {"stride": 2, "padding": 2, "groups": 2},
    ),
    "groups of channels last": (
        {"n": 3, "c": 8, "h": 37, "w": 35, "k": 21, "r": 3, "s": 3},
        {"padding": 1, "groups": 5, "layout": "NHWC"},
    ),
    "groups of few pixels": (
        {"n": 9, "c": 20, "h": 12, "w": 12, "k": 21, "r": 3, "s": 3},
        {"padding": 1, "groups": 6},
    ),
    "groups of one tap": ({"n": 6, "c": 40, "h": 20, "w": 20, "k": 50, "r": 1, "s": 1}, {"groups": 4}),
    "channels last": ({"n": 2, "c": 16, "h": 30, "w": 30, "k": 70, "r": 3, "s": 3}, {"layout": "NHWC"}),
    "one image of channels last": (
        {"n": 1, "c": 12, "h": 70, "w": 50, "k": 36, "r": 5, "s": 5},
        {"layout": "NHWC", "stride": 2, "padding": 3, "dilation": 2},
    ),
    "one image of channels last, depthwise": (
        {"n": 1, "c": 1, "h": 150, "w": 150, "k": 1, "r": 3, "s": 3},
        {"layout": "NHWC", "padding": 1, "groups": 96},
    ),
    "one image of channels last, one tap": (
        {"n": 1, "c": 100, "h": 40, "w": 40, "k": 90, "r": 1, "s": 1},
        {"layout": "NHWC"},
    ),
    "single pixels of channels last": (
        {"n": 3, "c": 512, "h": 1, "w": 1, "k": 4096, "r": 1, "s": 1},
        {"layout": "NHWC"},
    ),
    "small images of channels last, one tap": (
        {"n": 9, "c": 300, "h": 2, "w": 2, "k": 600, "r": 1, "s": 1},
        {"layout": "NHWC"},
    ),
    "few pixels": ({"n": 70, "c": 30, "h": 8, "w": 8, "k": 70, "r": 7, "s": 7}, {}),
    "one image of few pixels": ({"n": 1, "c": 300, "h": 9, "w": 9, "k": 130, "r": 3, "s": 3}, {"stride": 2}),
    "patches that do not meet": ({"n": 3, "c": 3, "h": 64, "w": 64, "k": 96, "r": 4, "s": 4}, {"stride": 4}),
    "deep, with a stride": (
        {"n": 3, "c": 64, "h": 29, "w": 29, "k": 130, "r": 3, "s": 3},
        {"stride": 2, "padding": 2},
    ),
    "kernels as large as the image": ({"n": 12, "c": 64, "h": 5, "w": 6, "k": 150, "r": 5, "s": 6}, {}),
    "kernels as large as the image, channels last": (
        {"n": 12, "c": 64, "h": 5, "w": 6, "k": 150, "r": 5, "s": 6},
        {"layout": "NHWC"},
    ),
    "tiles": ({"n": 5, "c": 70, "h": 30, "w": 30, "k": 70, "r": 3, "s": 3}, {"padding": 1}),
    "tiles of channels last": (
        {"n": 5, "c": 70, "h": 30, "w": 30, "k": 70, "r": 3, "s": 3},
        {"padding": 1, "layout": "NHWC"},
    ),
    "tiles of many images": ({"n": 9, "c": 33, "h": 29, "w": 31, "k": 35, "r": 3, "s": 3}, {"padding": 1}),
    "tiles of many kernels": ({"n": 6, "c": 256, "h": 14, "w": 14, "k": 300, "r": 3, "s": 3}, {"padding": 1}),
    "tiles of as many kernels as threads": (
        {"n": 1, "c": 512, "h": 13, "w": 14, "k": 250, "r": 3, "s": 3},
        {"padding": 1},
    ),
    "tiles, with a stride": (
        {"n": 5, "c": 70, "h": 31, "w": 29, "k": 70, "r": 3, "s": 3},
        {"stride": 2, "padding": 1},
    ),
    "tiles of channels last, with a stride": (
        {"n": 5, "c": 70, "h": 30, "w": 30, "k": 70, "r": 3, "s": 3},
        {"stride": 2, "padding": 1, "layout": "NHWC"},
    ),
    "tiles of one image, with a stride": (
        {"n": 1, "c": 130, "h": 33, "w": 34, "k": 130, "r": 3, "s": 3},
        {"stride": 2, "padding": 1},
    ),
    "patches of many images": (
        {"n": 8, "c": 128, "h": 29, "w": 29, "k": 130, "r": 3, "s": 3},
        {"stride": 2, "padding": 2},
    ),
    "one image of many channels": (
        {"n": 1, "c": 100, "h": 30, "w": 21, "k": 40, "r": 5, "s": 5},
        {"padding": 2},
    ),
    "one image of many channels, with a stride": (
        {"n": 1, "c": 70, "h": 41, "w": 40, "k": 16, "r": 5, "s": 5},
        {"stride": 2},
    ),
    "one image of many channels last": (
        {"n": 1, "c": 100, "h": 30, "w": 30, "k": 20, "r": 5, "s": 5},
        {"layout": "NHWC"},
    ),
    "one image, one tap": ({"n": 1, "c": 70, "h": 30, "w": 31, "k": 90, "r": 1, "s": 1}, {}),
    "one tap": ({"n": 5, "c": 70, "h": 30, "w": 30, "k": 40, "r": 1, "s": 1}, {}),
    "one tap, many kernels of few pixels": ({"n": 9, "c": 100, "h": 7, "w": 7, "k": 300, "r": 1, "s": 1}, {}),
    "depthwise of channels last": (
        {"n": 12, "c": 1, "h": 40, "w": 40, "k": 1, "r": 3, "s": 3},
        {"groups": 64, "layout": "NHWC"},
    ),
    "depthwise": ({"n": 12, "c": 1, "h": 40, "w": 40, "k": 1, "r": 3, "s": 3}, {"padding": 1, "groups": 64}),
    "depthwise, with a stride": (
        {"n": 9, "c": 1, "h": 41, "w": 40, "k": 1, "r": 3, "s": 3},
        {"padding": 1, "stride": 2, "groups": 70},
    ),
    "one image, depthwise": (
        {"n": 1, "c": 1, "h": 40, "w": 40, "k": 1, "r": 7, "s": 7},
        {"padding": 3, "groups": 100},
    ),
    "one image, two kernels for a channel": (
        {"n": 1, "c": 1, "h": 60, "w": 60, "k": 2, "r": 3, "s": 3},
        {"padding": 1, "groups": 100},
    ),
    "one image, groups": ({"n": 1, "c": 8, "h": 30, "w": 30, "k": 9, "r": 3, "s": 3}, {"groups": 21}),
}


@lru_cache
def convolution(name, what):
    """Kept for all backends, with what the definition says of it."""
    sizes, options = CONVOLUTIONS[what]
    return testing.make_case(KERNELS[name], np.float32, sizes=sizes, options=options)


@of_cython
@pytest.mark.parametrize("name", ["conv2d", "conv2d_backward"])
@pytest.mark.parametrize("what", CONVOLUTIONS)
def test_convolutions_in_parts_are_right_and_have_the_same_bits(backend, name, what):
    case, options = convolution(name, what), CONVOLUTIONS[what][1]
    function = backend.function(case.kernel)
    alone = with_threads(1, function, *case.arguments.values(), **options)
    for count in COUNTS:
        assert with_threads(count, function, *case.arguments.values(), **options) == alone
    with fastnn.num_threads(4):
        testing.check_parity(function, case)


#: Rows, inputs and outputs: odd ones, beyond each block size, and each form that a product takes.
PRODUCTS = [
    (1, 4000, 3503),
    (3, 1700, 3001),
    (33, 787, 131),
    (7, 3000, 700),
    (257, 321, 641),
    (1025, 330, 97),
    (1503, 641, 67),
    (5000, 3, 400),
    (40, 60_000, 9),
    (500, 1, 5000),
    (20_000, 20, 30),
]


@of_cython
@pytest.mark.parametrize("size", PRODUCTS, ids="{0[0]}x{0[1]}x{0[2]}".format)
def test_products_of_any_size_have_the_same_bits(backend, dtype, size):
    rows, inputs, outputs = size
    rng = np.random.default_rng(0)
    x, weight = rng.random((rows, inputs), dtype) - 0.5, rng.random((outputs, inputs), dtype) - 0.5
    bias, grad = rng.random(outputs, dtype), rng.random((rows, outputs), dtype) - 0.5
    calls = [
        lambda: backend.linear(x, weight, bias, activation="tanh"),
        lambda: backend.linear_backward(grad, x, weight),
        lambda: backend.hidden_delta(grad, weight, x),
    ]
    for call in calls:
        alone = with_threads(1, call)
        for count in COUNTS:
            assert with_threads(count, call) == alone, count


@of_cython
@pytest.mark.parametrize(
    "size", [(129, 1000, 515), (1025, 330, 97), (3, 1700, 3001)], ids="{0[0]}x{0[1]}x{0[2]}".format
)
def test_products_in_parts_are_right(backend, size):
    rows, inputs, outputs = size
    rng = np.random.default_rng(0)
    x, weight, bias = rng.random((rows, inputs)), rng.random((outputs, inputs)), rng.random(outputs)
    grad = rng.random((rows, outputs))
    with fastnn.num_threads(4):
        results = [backend.linear(x, weight, bias), *backend.linear_backward(grad, x, weight)]
    expected = [x @ weight.T + bias, grad @ weight, grad.T @ x, grad.sum(0)]
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-12)


@of_cython
@pytest.mark.parametrize(
    "shape", [(3001, 100), (40, 30_000), (2, 300_001), (300_001, 2), (60, 70, 80)], ids=str
)
@pytest.mark.parametrize("axis", [0, -1])
def test_softmax_of_any_shape_has_the_same_bits(backend, shape, axis):
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((2, *shape), dtype=np.float32)
    for function, arguments in [(backend.softmax, (x,)), (backend.log_softmax_backward, (grad, x))]:
        alone = with_threads(1, function, *arguments, axis=axis)
        for count in COUNTS:
            assert with_threads(count, function, *arguments, axis=axis) == alone
    with fastnn.num_threads(4):
        expected = fastnn.backend("numpy").softmax(x, axis=axis)
        np.testing.assert_allclose(backend.softmax(x, axis=axis), expected, rtol=1e-5)


@of_cython
@pytest.mark.parametrize("sizes", [{"n": 9, "c": 70_001}, {"n": 400, "c": 1100}], ids=str)
def test_gradients_of_layer_norm_in_parts_are_right_and_have_the_same_bits(backend, sizes):
    """Rows that are so wide that columns are summed later, and parts of many rows."""
    case = testing.make_case(KERNELS["layer_norm_backward"], np.float32, sizes=sizes)
    alone = with_threads(1, backend.layer_norm_backward, *case.arguments.values())
    for count in COUNTS:
        assert with_threads(count, backend.layer_norm_backward, *case.arguments.values()) == alone
    with fastnn.num_threads(4):
        testing.check_parity(backend.layer_norm_backward, case)


#: A kernel of each family, with sizes for which it uses several threads.
REPEATED = {
    "linear": {"n": 90, "in": 400, "out": 300},
    "linear_backward": {"n": 90, "in": 400, "out": 300},
    "conv2d": {"n": 9, "c": 16, "h": 24, "w": 24, "k": 24, "r": 3, "s": 3},
    "conv2d_backward": {"n": 9, "c": 16, "h": 24, "w": 24, "k": 24, "r": 3, "s": 3},
    "max_pool2d": {"n": 8, "c": 8, "h": 70, "w": 70},
    "softmax": {"n": 300, "classes": 1000},
    "cross_entropy_with_grad": {"n": 300, "classes": 1000},
    "gelu": {"n": 300_000},
    "adam_step": {"n": 300_000},
}


@of_cython
@pytest.mark.parametrize("name", REPEATED)
def test_a_hundred_runs_have_the_same_bits(backend, dtype, name):
    case = testing.make_case(KERNELS[name], dtype, sizes=REPEATED[name])
    assert case.sizes.keys() == REPEATED[name].keys()

    def run(count):
        with fastnn.num_threads(count):
            return bits(tuple(value for _, value in testing.run(backend.function(case.kernel), case)))

    alone = run(1)
    for _ in range(100):
        assert run(4) == alone


@compiled
def test_the_runs_above_have_used_workers():
    """Or they would have shown nothing."""
    x = np.ones((400, 400), np.float32)
    with fastnn.num_threads(4):
        fastnn.backend("cython").linear(x, x)
    pool = importlib.import_module("fastnn_ext.baseline.threads")
    assert pool.workers() >= (3 if pool.CAN_HAVE_WORKERS else 0)


@compiled
def test_what_is_begun_inside_a_chunk_stays_on_its_thread():
    """A pool that waited for workers which wait for it would hang here."""
    pool = importlib.import_module("fastnn_ext.baseline.threads")
    task_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_ssize_t)
    run_type = ctypes.CFUNCTYPE(
        ctypes.c_int, task_type, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p
    )
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    functions = pointer_of(pool.POOL, b"fastnn_ext.baseline.threads.POOL")
    run = run_type(ctypes.c_void_p.from_address(functions).value)
    outer, inner = {}, {}

    @task_type
    def inside(context, chunk):
        time.sleep(0.001)
        inner.setdefault(threading.get_ident(), []).append(chunk)
        return 0

    @task_type
    def task(context, chunk):
        time.sleep(0.01)
        outer.setdefault(threading.get_ident(), []).append(chunk)
        return run(inside, None, 5, 4, None)

    assert run(task, None, 16, 4, None) == 0
    assert sorted(chain.from_iterable(outer.values())) == list(range(16))
    assert inner == {thread: list(range(5)) * len(chunks) for thread, chunks in outer.items()}
    assert len(outer) > 1 or not pool.CAN_HAVE_WORKERS


@of_cython
def test_several_threads_of_python_share_the_pool(backend):
    rng = np.random.default_rng(0)
    x, weight = (
        rng.standard_normal((300, 300), dtype=np.float32),
        rng.standard_normal((300, 300), dtype=np.float32),
    )
    work = [
        lambda: backend.linear(x, weight),
        lambda: backend.linear_backward(x, x, weight),
        lambda: backend.gelu(x),
    ]
    alone = [with_threads(1, one) for one in work]
    fastnn.set_num_threads(4)
    wrong = []

    def repeat():
        for _ in range(30):
            wrong.extend(one for one, expected in zip(work, alone, strict=True) if bits(one()) != expected)

    threads = [threading.Thread(target=repeat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


@of_cython
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="knows the rounding modes of x86 only"
)
@posix
def test_workers_round_as_the_caller_does(backend):
    libm, upwards = ctypes.CDLL(None), 0x800
    x = np.random.default_rng(0).standard_normal((300, 300), dtype=np.float32)
    nearest = with_threads(4, backend.linear, x, x)
    libm.fesetround(upwards)
    try:
        results = [with_threads(count, backend.linear, x, x) for count in (1, 4)]
    finally:
        libm.fesetround(0)
    assert results[0] == results[1] != nearest


# ----------------------------------------------------------------------------------------------------
# Processes

SETUP = """
import os, sys, threading, time
import numpy as np
import fastnn
rng = np.random.default_rng(0)
x, weight = rng.standard_normal((300, 400), dtype=np.float32), rng.standard_normal((350, 400), dtype=np.float32)
compute = lambda: fastnn.linear(x, weight).tobytes() + fastnn.gelu(weight).tobytes() + fastnn.tanh(big).tobytes()
big = rng.standard_normal(600_000, dtype=np.float32)
with fastnn.num_threads(1):
    expected = compute()

def child():
    # in the child, whose exit status says whether it is right
    status = 1
    try:
        status = 0 if compute() == expected and compute() == expected else 2
    finally:
        os._exit(status)

def fork():
    pid = os.fork()
    if pid == 0:
        child()
    return pid

def join(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


def runs(code, **environment):
    finished = python(
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + code, **environment
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@posix
@pytest.mark.parametrize("count", ["1", "4"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_forked_child_computes(count, warm):
    before = "compute(); compute()" if warm else ""
    runs(
        f"{SETUP}\n{before}\nfor pid in [fork() for _ in range(5)]: join(pid)\nassert compute() == expected",
        FASTNN_NUM_THREADS=count,
    )


@posix
def test_a_grandchild_computes():
    runs(
        f"{SETUP}\ncompute()\npid = os.fork()\nif pid == 0:\n    compute()\n    join(fork())\n    child()\njoin(pid)"
    )


@posix
def test_a_fork_while_another_thread_computes():
    code = """
stop = False
def work():
    while not stop:
        assert compute() == expected
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(30):
    join(fork())
stop = True
for thread in threads: thread.join()
"""
    runs(SETUP + code, FASTNN_NUM_THREADS="4")


@posix
@pytest.mark.parametrize("count", ["1", "4"])
def test_a_server_that_imports_before_it_forks(count):
    """Its workers serve with several threads each, at the same time as it computes itself; ended ones are replaced."""
    code = """
def serve(requests, answers):
    def requested():
        while os.read(requests, 1):
            os.write(answers, b"y" if compute() == expected else b"n")
    threads = [threading.Thread(target=requested) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os._exit(0)

def worker():
    (requests, to_worker), (from_worker, answers) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for _, request, _ in workers: os.close(request)
        os.close(to_worker)
        serve(requests, answers)
    os.close(requests), os.close(answers)
    return pid, to_worker, from_worker

compute()
workers = []
for _ in range(3): workers.append(worker())
for generation in range(3):
    for _, request, _ in workers: os.write(request, b"12345")
    assert compute() == expected
    for _, _, answer in workers:
        assert b"".join(os.read(answer, 1) for _ in range(5)) == b"yyyyy"
    pid, request, _ = workers.pop(0)
    os.close(request)
    join(pid)
    workers.append(worker())
for pid, request, _ in workers:
    os.close(request)
for pid, _, _ in workers:
    join(pid)
"""
    runs(SETUP + code, FASTNN_NUM_THREADS=count)


@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("method", ["spawn", *([] if sys.platform == "win32" else ["forkserver", "fork"])])
def test_multiprocessing(method, count, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing
import warnings
import numpy as np
import fastnn
warnings.simplefilter("ignore", DeprecationWarning)
def total(seed):
    x = np.random.default_rng(seed).standard_normal((400, 400), dtype=np.float32)
    return fastnn.linear(x, x).tobytes()
if __name__ == "__main__":
    expected = [total(seed) for seed in range(4)]
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        assert pool.map_async(total, range(4)).get(110) == expected
"""
    )
    runs(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", FASTNN_NUM_THREADS=count)


def test_a_process_ends_while_a_thread_computes():
    code = """
threading.Thread(target=lambda: [compute() for _ in range(10**6)], daemon=True).start()
time.sleep(0.2)
"""
    runs(SETUP + code, FASTNN_NUM_THREADS="4")


@compiled
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit that threads count against")
def test_without_memory_for_threads_the_caller_is_alone():
    code = """
import resource
y = np.empty_like(big)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**21, -1))
assert (fastnn.tanh(big, out=y) == np.frombuffer(expected, np.float32)[-big.size:]).all()
from fastnn_ext.baseline import threads
assert threads.workers() == 0
"""
    runs(SETUP + code, FASTNN_NUM_THREADS="4")


@compiled
def test_nothing_starts_before_it_is_needed():
    code = """
import json, numpy as np, fastnn
from fastnn_ext.baseline import threads
seen = [threads.workers()]
fastnn.relu(np.ones(100)), fastnn.linear(np.ones((9, 9)), np.ones((9, 9)))
print(json.dumps([*seen, threads.workers()]))
"""
    assert answer(code, FASTNN_NUM_THREADS="4") == [0, 0]


@compiled
@pytest.mark.parametrize("count", [1, 2, 4])
def test_callers_and_workers_are_never_more_than_allowed(count):
    """A job has as many threads as it may, its caller's included, and others that run at once have no workers."""
    code = """
import json
from fastnn_ext.baseline import threads
tasks = lambda: len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
before = tasks()
compute()
seen = [threads.workers(), tasks() - before]
callers = [threading.Thread(target=compute) for _ in range(3)]
for caller in callers: caller.start()
for caller in callers: caller.join()
print(json.dumps([threads.CAN_HAVE_WORKERS, *seen, threads.workers()]))
"""
    possible, workers, tasks, later = answer(SETUP + code, FASTNN_NUM_THREADS=str(count))
    assert workers == later == (count - 1 if possible else 0)
    assert tasks == (workers if sys.platform == "linux" else 0)


PLACES = """
import ctypes, json
libc = ctypes.CDLL(None)
threads = lambda: {int(one) for one in os.listdir("/proc/self/task")}
others = threads()
compute()
worker = (threads() - others).pop()

def compute_in_one_place():
    # the worker registers itself in the first job that it takes part in; the system may move the caller at any moment
    for _ in range(1000):
        before = libc.sched_getcpu()
        compute()
        if libc.sched_getcpu() == before and os.sched_getaffinity(worker) != allowed:
            return before

allowed = os.sched_getaffinity(0)
"""


@compiled
@two_processors
def test_a_worker_is_not_woken_on_the_processor_of_its_caller():
    code = """
place = compute_in_one_place()
print(json.dumps([place, sorted(allowed), sorted(os.sched_getaffinity(worker))]))
"""
    place, allowed, places = answer(SETUP + PLACES + code, FASTNN_NUM_THREADS="2")
    assert places == [one for one in allowed if one != place]


@compiled
@two_processors
def test_a_caller_with_one_processor_leaves_the_workers_theirs():
    code = """
compute_in_one_place()
before = os.sched_getaffinity(worker)
for one in allowed:
    os.sched_setaffinity(0, [one])
    assert compute() == expected
    assert os.sched_getaffinity(worker) == before
"""
    runs(SETUP + PLACES + code, FASTNN_NUM_THREADS="2")


@compiled
def test_a_count_of_the_thread_is_what_its_kernels_use():
    code = (
        SETUP
        + """
import json
from fastnn_ext.baseline import threads
seen = []
with fastnn.num_threads(1):
    compute()
    seen.append(threads.workers())
    other = threading.Thread(target=compute)
    other.start()
    other.join()
    seen.append(threads.workers() > 0 or not threads.CAN_HAVE_WORKERS)
print(json.dumps(seen))
"""
    )
    assert answer(code, FASTNN_NUM_THREADS="3") == [0, True]


# ----------------------------------------------------------------------------------------------------
# Signals

INTERRUPTED = """
import json, os, signal, sys, threading, time
import numpy as np
import fastnn
def interrupt():
    time.sleep(0.1)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
{arrays}
delays = []
while len(delays) < 5 and min(delays, default=1) > {limit}:
    sent = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        {call}
    except KeyboardInterrupt:
        delays.append(time.perf_counter() - sent[0])
    thread.join()
    assert (fastnn.linear(np.ones((200, 200)), np.ones((200, 200))) == 200).all()  # all is well afterwards
print(json.dumps(min(delays)))
"""
LONG = {  # each takes a second or more where it is not interrupted
    "product": ("x = np.ones((3500, 3500), np.float32)", "fastnn.linear(x, x)"),
    "gradients": ("x = np.ones((3000, 3000), np.float32)", "fastnn.linear_backward(x, x, x)"),
    "few columns": (
        "x = np.ones((9, 2_000_000)); y = np.empty((9, 9))",
        "[fastnn.linear(x, x, out=y) for _ in range(18)]",
    ),
    "elements": (
        "x = np.ones(12_000_000); y = np.empty_like(x)",
        "[fastnn.gelu(x, out=y) for _ in range(9)]",
    ),
    "one row": (
        "x = np.zeros((1, 60_000_000), np.float32)",
        "[fastnn.log_softmax(x, out=x) for _ in range(9)]",
    ),
    "two long columns": (
        "x = np.zeros((20_000_000, 2), np.float32)",
        "fastnn.softmax(x, axis=0, out=x)",
    ),
    "gradients of two long columns": (
        "x = np.zeros((20_000_000, 2), np.float32)",
        "fastnn.log_softmax_backward(x, x, axis=0, out=x)",
    ),
    "losses": (
        "x = np.ones(12_000_000); y = np.empty_like(x)",
        "[fastnn.binary_cross_entropy_with_logits_with_grad(x, x, out=y) for _ in range(9)]",
    ),
    "convolution": (
        "x = np.ones((64, 64, 64, 64), np.float32); w = x[:, :, :7, :7].copy()",
        "fastnn.conv2d(x, w)",
    ),
    "tiles": (
        "x = np.ones((64, 256, 56, 56), np.float32); w = np.ones((256, 256, 3, 3), np.float32)",
        "fastnn.conv2d(x, w, padding=1)",
    ),
    "tiles, with a stride": (
        "x = np.ones((128, 256, 56, 56), np.float32); w = np.ones((256, 256, 3, 3), np.float32)",
        "fastnn.conv2d(x, w, padding=1, stride=2)",
    ),
    "gradients of tiles": (
        "x = np.ones((64, 256, 40, 40), np.float32); w = np.ones((256, 256, 3, 3), np.float32)",
        "fastnn.conv2d_backward(x, x, w, padding=1)",
    ),
    "gradients of a convolution": (
        "x = np.ones((64, 64, 64, 64), np.float32); w = x[:, :, :5, :5].copy(); y = fastnn.conv2d(x, w)",
        "fastnn.conv2d_backward(y, x, w)",
    ),
    "inputs of steps": (
        "x, w, u, h0 = (np.ones(n, np.float32) for n in [(1500, 40, 512), (1024, 512), (1024, 1024), (40, 1024)])",
        "fastnn.rnn(x, w, u, w[:, 0].copy(), h0)",
    ),
}


@compiled
@posix
@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("what", LONG)
def test_control_c_is_noticed(what, count):
    """Within 200 ms; a machine that does other things gets five attempts."""
    arrays, call = LONG[what]
    code = INTERRUPTED.format(arrays=arrays, call=call, limit=0.2)
    assert answer(code, FASTNN_NUM_THREADS=count, FASTNN_ISA=runnable_isas()[-1]) < 0.2


@compiled
@posix
def test_a_handler_may_call_kernels_and_fork():
    """In the middle of a product, whose thread's workspace and workers it must leave alone."""
    code = """
import signal
square = rng.standard_normal((1200, 1200), dtype=np.float32)
right = fastnn.linear(square, square).tobytes()
calls, pids, parent = [], [], os.getpid()
def handler(number, frame):
    calls.append(compute() == expected)
    if len(pids) < 2:
        pids.append(os.fork())
    if os.getpid() == parent:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
while len(calls) < 6 and os.getpid() == parent:
    if fastnn.linear(square, square).tobytes() != right:
        os._exit(3)
if os.getpid() != parent:
    os._exit(0 if fastnn.linear(square, square).tobytes() == right else 4)
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(calls)
for pid in pids: join(pid)
"""
    runs(SETUP + code, FASTNN_NUM_THREADS="3", FASTNN_ISA=runnable_isas()[-1])


@compiled
@posix
def test_an_optimizer_step_is_whole_or_not_begun():
    code = """
import json, os, signal, threading, time
import numpy as np
import fastnn
param, grad = np.zeros(5_000_000), np.ones(5_000_000)
threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(400):
        fastnn.sgd_step(param, grad, lr=1.0)
except KeyboardInterrupt:
    print(json.dumps(bool((param == param[0]).all())))
"""
    assert answer(code, FASTNN_NUM_THREADS="2")


# ----------------------------------------------------------------------------------------------------
# How many

COUNT = "import json, fastnn; print(json.dumps(fastnn.get_num_threads()))"


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({"FASTNN_NUM_THREADS": "3"}, 3),
        ({"FASTNN_NUM_THREADS": " 3 ", "OMP_NUM_THREADS": "7"}, 3),
        ({"OMP_NUM_THREADS": "7"}, 7),
        ({"OMP_NUM_THREADS": "5,2,1"}, 5),
        ({"OMP_NUM_THREADS": "", "FASTNN_NUM_THREADS": ""}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_environment_says_how_many(environment, count):
    if count is None:
        count = min(_threads._affinity(), int(np.ceil(min(_threads._quota(), 1024))))
    assert answer(COUNT, **environment) == count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs an affinity")
def test_the_affinity_says_how_many():
    assert answer(f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n{COUNT}") == 1


@pytest.mark.parametrize("value", ["0", "-1", "2.0", "two", "1025", "+2", ",2", "9" * 5000, "\u0663"])
def test_a_bad_variable_is_an_error_where_it_is_ours(value, monkeypatch):
    monkeypatch.setenv("FASTNN_NUM_THREADS", value)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ValueError, match=r"^FASTNN_NUM_THREADS is .*; expected an int from 1 to 1024$"):
        _threads._from_environment("FASTNN_NUM_THREADS")
    assert _threads._from_environment("OMP_NUM_THREADS") is None


def test_a_bad_variable_is_an_error_at_import():
    message = complaint("import fastnn", FASTNN_NUM_THREADS="many")
    assert message == "ValueError: FASTNN_NUM_THREADS is 'many'; expected an int from 1 to 1024"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, np.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, np.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, np.inf),
    ],
)
def test_the_quota_of_control_groups(files, quota, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _threads._quota(tmp_path) == quota


@pytest.mark.parametrize("function", [fastnn.set_num_threads, fastnn.num_threads], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("n", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (1025, ValueError),
        (2**80, ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        (2.0, TypeError),
        ("2", TypeError),
        (None, TypeError),
        (np.ones(2, int), TypeError),
    ],
    ids=repr,
)
def test_a_bad_count_is_an_error(function, n, error):
    before = fastnn.get_num_threads()
    with pytest.raises(error, match=rf"^{function.__name__}: n is .*; expected an int from 1 to 1024$"):
        function(n)
    assert fastnn.get_num_threads() == before


def test_a_count_of_the_thread_and_one_of_the_process():
    seen = []
    fastnn.set_num_threads(np.int64(3))
    with fastnn.num_threads(2):
        with fastnn.num_threads(5):
            assert fastnn.get_num_threads() == 5
        assert fastnn.get_num_threads() == 2
        fastnn.set_num_threads(4)
        assert fastnn.get_num_threads() == 2
        other = threading.Thread(target=lambda: seen.append(fastnn.get_num_threads()))
        other.start()
        other.join()
    assert seen == [4]
    assert fastnn.get_num_threads() == 4


def test_the_count_is_restored_after_an_error():
    before = fastnn.get_num_threads()
    with pytest.raises(ZeroDivisionError), fastnn.num_threads(7):
        _ = 1 / 0
    assert fastnn.get_num_threads() == before


def test_info_says_how_many():
    said = runs("from fastnn.cli.info import info; print(info())", FASTNN_NUM_THREADS="3")
    line = next(line for line in said.splitlines() if line.startswith("threads "))
    if fastnn.available_backends()[0] == "cython" and sys.platform != "win32":
        assert line.split(maxsplit=1)[1] == "3 at most in a compiled kernel, from FASTNN_NUM_THREADS"
    else:
        assert line.split(maxsplit=1)[1].startswith("1 ")
