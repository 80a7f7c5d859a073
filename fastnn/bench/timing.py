"""The stopwatch: contenders take turns, round by round, so that a busy moment of the machine meets them all.

A turn calls a contender as often as the clock needs, after one call that is not counted: it finds its arrays in the
caches as it left them itself, not as another contender did. Calls that take many times a turn do without. The order of
a round begins with another contender each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from timeit import Timer
from typing import Any

from fastnn.bench.rows import Call, Statement

#: A call that takes so many turns is not made once more to warm the caches.
LONG = 10

Clock = Callable[[], float]


@dataclass(frozen=True)
class Patience:
    """How long is measured."""

    #: Seconds of one turn at least, and of all turns of a contender together.
    turn: float = 0.004
    seconds: float = 0.1
    least: int = 3
    most: int = 25
    #: Between two turns, for threads of other libraries that spin when they have nothing to do.
    pause: float = 0.0


QUICK = Patience(turn=0.001, seconds=0.01, most=9)


class ContenderError(Exception):
    """A contender that raised an error while it was timed."""

    def __init__(self, contender: str, problem: BaseException) -> None:
        super().__init__(f"{type(problem).__name__}: {problem}")
        self.contender = contender


def clock_for(threads: int) -> str:
    """The clock's name in `time`.

    The time of the processor leaves out what other programs took of it, and is right where all work is in one thread.
    Where its clock is coarse (on Windows) it is the time of the day.
    """
    fine = time.get_clock_info("process_time").resolution < 1e-6
    return "process_time" if threads == 1 and fine else "perf_counter"


def timer_of(call: Call, clock: Clock) -> Timer:
    """What times a number of calls."""
    if isinstance(call, Statement):
        names: dict[str, Any] = dict(call.names)
        return Timer(call.source, timer=clock, globals=names)
    return Timer("call()", timer=clock, globals={"call": call})


def interleaved(
    contenders: Mapping[str, Call], clock: Clock, patience: Patience
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of a call of each contender, one figure for each round; and the calls in a turn."""
    timers = {name: timer_of(call, clock) for name, call in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timers}
    counts: dict[str, int] = {}
    turns: dict[str, float] = {}
    for name in timers:
        with _naming(name):
            counts[name], turns[name] = _calls_in_a_turn(timers[name], patience.turn)
    mean = sum(turns.values()) / max(len(turns), 1)
    rounds = max(patience.least, min(patience.most, math.floor(patience.seconds / max(mean, 1e-9))))
    names = list(timers)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(patience.pause)
            with _naming(name):
                if turns[name] < LONG * patience.turn:
                    timers[name].timeit(1)
                seconds[name].append(timers[name].timeit(counts[name]) / counts[name])
    return seconds, counts


def _calls_in_a_turn(timer: Timer, turn: float) -> tuple[int, float]:
    """How many calls fill a turn, and the seconds that they take."""
    calls = 1
    timer.timeit(1)
    while (elapsed := timer.timeit(calls)) < turn / 4:
        calls *= 4
    count = max(1, math.ceil(calls * turn / elapsed))
    return count, count * elapsed / calls


@contextmanager
def _naming(contender: str) -> Iterator[None]:
    """Errors within are those of a contender."""
    try:
        yield
    except Exception as problem:
        raise ContenderError(contender, problem) from problem
