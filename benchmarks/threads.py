"""How much two Python threads that call a kernel at once get done, next to one alone.

    python benchmarks/threads.py [--kernel-threads 1] [--rounds 15]

Unless told otherwise every kernel has one thread, so what is measured is whether one caller leaves the other alone: the
GIL, the memory that both allocate, locks. Calls take about 2 ms. The rounds of one thread and of two alternate; two
threads on two idle processors get twice as much done where nothing is shared. Where a kernel may use both processors,
one caller alone already gets most of that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import fastnn

Call = Callable[[], Any]

#: Seconds that a round takes, for each thread.
ROUND = 0.2


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def kernels() -> dict[str, Callable[[], Call]]:
    """What makes a call for a thread of its own, of about 2 ms each."""
    return {
        "linear 128x1024->1024": lambda: partial(fastnn.linear, random(128, 1024), random(1024, 1024)),
        "conv2d 4x64x28x28 k64 3x3": lambda: partial(
            fastnn.conv2d, random(4, 64, 28, 28), random(64, 64, 3, 3), padding=1
        ),
        "gelu 2e6": lambda: partial(fastnn.gelu, random(2 * 10**6)),
    }


def seconds(calls: list[Call], count: int) -> float:
    """Until every thread has made its call `count` times, all having begun at once."""
    start = threading.Barrier(len(calls) + 1)

    def work(call: Call) -> None:
        start.wait()
        for _ in range(count):
            call()

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--kernel-threads", type=int, default=1, help="of each call; default: 1")
    asked = parser.parse_args()
    fastnn.set_num_threads(asked.kernel_threads)
    print("| Work | one call | two threads |", "| :-- | --: | --: |", sep="\n")
    for name, make in kernels().items():
        calls = [make(), make()]
        single = statistics.median(seconds(calls[:1], 5) / 5 for _ in range(5))
        count = max(1, round(ROUND / single))
        ratios, alone = [], []
        for _ in range(asked.rounds):
            alone.append(seconds(calls[:1], count))
            ratios.append(2 * alone[-1] / seconds(calls, count))
        each = statistics.median(alone) / count
        print(f"| {name} | {each * 1e3:.2f} ms | {statistics.median(ratios):.2f}x |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
