"""How many threads the compiled kernels may use: the environment, the processors of this process, and the caller.

The pool itself belongs to the compiled kernels (`fastnn_ext/pyx/engine/pool.h`). Where none are compiled, the functions
here check and remember what they are given, and nothing depends on it.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from fastnn import _select

MOST = 1024
EXPECTED = f"expected an int from 1 to {MOST}"


class _NoPool(threading.local):
    """The numbers of a pool that does not exist."""

    CAN_HAVE_WORKERS = False
    default = 1
    here = 0

    def set_default(self, count: int) -> None:
        _NoPool.default = count

    def set_here(self, count: int) -> int:
        before, self.here = self.here, count
        return before

    def allowed(self) -> int:
        return self.here or _NoPool.default


def _from_environment(variable: str) -> int | None:
    """The count in `variable`, the first one where it is a list; None where it is not set.

    A variable of ours that is no count is an error; one of others may mean something to them, and nothing here.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        return None
    first = value.split(",")[0].strip()
    if first.isascii() and first.isdigit() and len(first) < 9 and 1 <= int(first) <= MOST:
        return int(first)
    if variable.startswith("FASTNN_"):
        raise ValueError(f"{variable} is {value!r}; {EXPECTED}")
    return None


def _affinity() -> int:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(root: Path = Path("/")) -> float:
    """The processors' worth of time that the control groups of this process may take; infinite without a limit."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = mount
        elif "cpu" in controllers.split(","):
            top = mount / "cpu"
        else:
            continue
        group = top / path.lstrip("/")
        # a container sees its own group at the top, whatever the path says
        for folder in {top, *(parent for parent in (group, *group.parents) if top in parent.parents)}:
            least = min(least, _quota_of(folder))
    return least


def _quota_of(group: Path) -> float:
    """The limit of one control group: version 2 has one file for it, version 1 has two."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def _default() -> tuple[int, str]:
    """The number of threads at the start, and where it is from."""
    for variable in ("FASTNN_NUM_THREADS", "OMP_NUM_THREADS"):
        count = _from_environment(variable)
        if count is not None:
            return count, variable
    processors, quota = _affinity(), _quota()
    if quota < processors:
        return max(1, math.ceil(quota)), "the CPU quota of the control group"
    return min(processors, MOST), "the CPUs that this process may use"


def _count(function: str, n: Any) -> int:
    """`n` as a number of threads."""
    try:
        count = operator.index(n)
    except TypeError:
        count = None
    if count is None or isinstance(n, bool):
        raise TypeError(f"{function}: n is {n!r} of type {type(n).__name__}; {EXPECTED}")
    if not 1 <= count <= MOST:
        raise ValueError(f"{function}: n is {count}; {EXPECTED}")
    return count


def set_num_threads(n: int) -> None:
    """Let a compiled kernel use up to `n` threads, the calling one included.

    This is the process's default, at first `FASTNN_NUM_THREADS`, or the first number in `OMP_NUM_THREADS`, or the CPUs
    that the process may use by its affinity and its control group's quota. Results do not depend on it, to the last
    bit. Small work is done by the calling thread alone, and so is the work of one Python thread while another one's
    has the pool. The Numba and NumPy versions do not depend on it: they run in the calling thread (NumPy's matrix
    products have threads of their own).

    Parameters
    ----------
    n : int
        From 1, which means no other threads, to 1024.

    Raises
    ------
    TypeError, ValueError
        Where `n` is no such number.

    See Also
    --------
    num_threads : The same for one block of code in one thread.
    """
    count = _count("set_num_threads", n)
    _pool.set_default(count)


def get_num_threads() -> int:
    """How many threads a compiled kernel may use that the calling thread calls now; see `set_num_threads`."""
    return int(_pool.allowed())


def num_threads(n: int) -> AbstractContextManager[None]:
    """Let compiled kernels use up to `n` threads in a `with` block, and in the calling thread only.

    Parameters
    ----------
    n : int
        From 1, which means no other threads, to 1024.

    Returns
    -------
    context manager
        At its end what was set before holds again.

    Raises
    ------
    TypeError, ValueError
        Where `n` is no such number.

    Examples
    --------
    >>> import fastnn
    >>> with fastnn.num_threads(1):
    ...     fastnn.get_num_threads()
    1
    """
    return _here(_count("num_threads", n))


@contextmanager
def _here(count: int) -> Iterator[None]:
    before = _pool.set_here(count)
    try:
        yield
    finally:
        _pool.set_here(before)


def describe() -> str:
    """For the bug report: how many threads, and why that many."""
    if not _pool.CAN_HAVE_WORKERS:
        return "1 (no compiled kernels that could use more)"
    count = get_num_threads()
    origin = f"from {_origin}" if count == _start else "set by the program"
    return f"{count} at most in a compiled kernel, {origin}"


_pool: Any = _select.thread_pool() or _NoPool()
_start, _origin = _default()
_pool.set_default(_start)
