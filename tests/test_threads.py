"""Threads that call the same kernel at once get the answers that one thread gets."""

import threading

import pytest

from fastnn import testing
from fastnn._contract import KERNELS

THREADS = 3
ROUNDS = 3
#: Enough elements for a kernel to give up the GIL.
LARGE = 2**14


def work(dtype):
    """A small case of each kernel, which keeps the GIL, and a larger one, which gives it up."""
    for kernel in KERNELS.values():
        small = testing.make_case(kernel, dtype)
        length = round(LARGE ** (1 / max(len(small.sizes), 1)))
        large = testing.make_case(kernel, dtype, sizes=dict.fromkeys(small.sizes, length))
        yield from [small, large] * ROUNDS


def bits(results):
    return [None if value is None else (value.dtype, value.tobytes()) for _, value in results]


def in_threads(body):
    """Run `body` in several threads at once; an error in one of them is an error here."""
    errors = []

    def guarded():
        try:
            body()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=guarded) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_threads_get_the_answers_of_one(backend, dtype):
    """All are in the same kernel at the same time; state shared between calls would not survive that."""
    tasks = [(backend.function(case.kernel), case) for case in work(dtype)]
    alone = [bits(testing.run(*task)) for task in tasks]
    turn = threading.Barrier(THREADS, timeout=60)

    def body():
        for task, expected in zip(tasks, alone, strict=True):
            turn.wait()
            assert bits(testing.run(*task)) == expected, task[1].id

    in_threads(body)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_a_thread_is_seen():
    with pytest.raises(AssertionError):
        in_threads(lambda: 1 / 0)
