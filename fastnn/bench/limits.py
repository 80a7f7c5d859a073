"""What this machine can do: multiply-adds, and copies within each level of its memory.

The peak is the best rate of large matrix products, NumPy's and our own. A bandwidth is that of copies, NumPy's and
those of our `relu`, read and written bytes counted; what is small is copied many times within one call. Several
threads are as many Python threads with a processor's work of their own, whatever threads a library would start.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastnn

#: Order of the matrices of a product.
ORDER = 768
#: What the processor's caches are taken for where the system does not tell.
CACHES = {"L1": 2**15, "L2": 2**20, "L3": 2**23}
SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")
MEMORY = "memory"
#: Bytes at which a copy is one of memory, whatever the processor says of a cache that it shares with many.
LARGEST = 2**28
#: Seconds of one measurement at least, and how often it is made: the best counts.
LEAST, ROUNDS = 0.01, 7
#: A copy of fewer bytes than this is made as many copies in one call, each a cache line further, in nearly the same
#: memory: a call alone would take longer than what is to be measured.
SMALL, WINDOWS, STEP = 2**20, 64, 8
#: The thread's own time leaves out what other programs took; where its clock is coarse it is the time of the day.
CLOCK = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter


@dataclass(frozen=True)
class Level:
    """A level of memory: the bytes that it holds, and those that are read and written in a second."""

    name: str
    holds: float
    bandwidth: float


@dataclass(frozen=True)
class Limits:
    """Of a number of threads: operations a second by dtype, and the levels from the smallest to memory."""

    flops: Mapping[str, float]
    levels: tuple[Level, ...]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Limits:
        """From JSON."""
        levels = tuple(
            Level(str(one["name"]), float(one["holds"] or math.inf), float(one["bandwidth"]))
            for one in given["levels"]
        )
        limits = cls({str(dtype): float(rate) for dtype, rate in given["flops"].items()}, levels)
        rates = [*limits.flops.values(), *(level.bandwidth for level in levels)]
        if not levels or not all(0 < rate < math.inf for rate in rates):
            raise ValueError("limits that no machine has")
        return limits

    def as_json(self) -> dict[str, Any]:
        """For a file; JSON has no infinity."""
        levels = [asdict(level) for level in self.levels]
        for level in levels:
            level["holds"] = level["holds"] if math.isfinite(level["holds"]) else None
        return {"flops": dict(self.flops), "levels": levels}

    def level_of(self, size: float) -> Level:
        """The smallest level that holds so many bytes."""
        return next((level for level in self.levels if size <= level.holds), self.levels[-1])

    def seconds(self, flops: float, size: float, dtype: str) -> float:
        """That so much work takes at least."""
        peak = self.flops.get(dtype, max(self.flops.values()))
        return max(flops / peak, size / self.level_of(size).bandwidth)

    def __str__(self) -> str:
        peaks = [f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in self.flops.items()]
        return ", ".join([*peaks, *(f"{one.name} {one.bandwidth / 1e9:.0f} GB/s" for one in self.levels)])


def measure(threads: int, dtypes: Iterable[str] = ("float32", "float64")) -> Limits:
    """The limits of so many threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1), fastnn.num_threads(1):
        flops = {dtype: _peak(threads, dtype) for dtype in dtypes}
        caches = cache_sizes()
        last = max(caches.values())
        levels = [
            Level(name, size, _copies(threads, size / 2)) for name, size in caches.items() if size < LARGEST
        ]
        levels.append(Level(MEMORY, math.inf, _copies(threads, min(4 * last, LARGEST))))
    return Limits(flops, tuple(levels))


def cache_sizes() -> dict[str, int]:
    """Bytes of the caches for data, by level."""
    found = {}
    for folder in sorted(SYSTEM.glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KM")) * (2**20 if size.endswith("M") else 2**10)
    return found or CACHES


def _peak(threads: int, dtype: str) -> float:
    def product_of(multiply: Callable[..., Any]) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((ORDER, ORDER)).astype(dtype) for _ in range(2))
        return partial(multiply, a, b, out=np.empty_like(a))

    ways = (np.matmul, fastnn.linear)
    rates = (_rate([product_of(way) for _ in range(threads)]) for way in ways)
    return 2.0 * ORDER**3 * max(rates)


def _copies(threads: int, size: float) -> float:
    """Bytes read and written in a second by copies of which source and target together have `size` bytes."""
    numbers = max(64, int(size) // 16)
    windows = WINDOWS if size < SMALL else 1

    def array() -> np.ndarray[Any, Any]:
        values = np.ones(numbers + STEP * windows)
        return np.lib.stride_tricks.as_strided(values, (windows, numbers), (8 * STEP, 8))

    rates = [_rate([partial(np.copyto, array(), array()) for _ in range(threads)])]
    if windows == 1:
        calls = [partial(fastnn.relu, np.ones(numbers), out=np.empty(numbers)) for _ in range(threads)]
        rates.append(_rate(calls))
    return 16.0 * numbers * windows * max(rates)


def _rate(calls: Sequence[Callable[[], Any]]) -> float:
    """Calls a second of all threads together, each making its own: the best of several rounds."""
    calls[0]()
    start = CLOCK()
    calls[0]()
    count = max(1, round(LEAST / max(CLOCK() - start, 1e-7)))
    return max(_together(calls, count) for _ in range(ROUNDS))


def _together(calls: Sequence[Callable[[], Any]], count: int) -> float:
    """The sum of the threads' rates, while each makes its call `count` times."""
    barrier, rates = threading.Barrier(len(calls)), []

    def work(call: Callable[[], Any]) -> None:
        barrier.wait()
        with fastnn.num_threads(1):  # which is each thread's own setting
            start = CLOCK()
            for _ in range(count):
                call()
            rates.append(count / max(CLOCK() - start, 1e-9))

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def all_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
