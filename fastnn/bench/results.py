"""What a measurement says: rows, ratios with their noise, and who won. Read from the JSON that `record` writes.

A time is the median of all rounds. The passes over all rows are repetitions of the same measurement; noise is how far
the figure of a pass lies from that of all. No difference below it, or below what is usual in the run, is a win or a
loss.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fastnn.bench.limits import Limits
from fastnn.bench.record import SCHEMA

BASELINE = "numpy"
#: Who we are, best first, among contenders.
OWN = ("cython", "numba")


class ResultsError(Exception):
    """What is wrong with a file that was given, in a sentence for whoever gave it."""


@dataclass(frozen=True)
class Figure:
    """Seconds of one call by one contender."""

    median: float
    q1: float
    q3: float
    #: The medians of the passes.
    passes: tuple[float, ...]

    @property
    def noise(self) -> float:
        """The relative distance of the furthest pass."""
        return max(abs(one / self.median - 1) for one in self.passes)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the baseline, and by how much the passes differ on that."""

    value: float
    noise: float

    @property
    def verdict(self) -> str:
        """Who won; nobody, where the difference is no larger than the noise."""
        if max(self.value, 1 / self.value) - 1 <= self.noise:
            return "even"
        return "win" if self.value > 1 else "loss"


@dataclass(frozen=True, eq=False)
class Row:
    """One workload by all contenders."""

    suite: str
    family: str
    kernel: str
    workload: str
    dtype: str
    threads: int
    flops: float
    bytes: float
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this row from the others, in every run."""
        return self.suite, self.family, self.kernel, self.workload, self.dtype, self.threads

    @property
    def name(self) -> str:
        """For readers."""
        parts = [self.kernel, self.workload, self.dtype if self.dtype != "float32" else ""]
        return " ".join(filter(None, [*parts, f"({self.threads} threads)" if self.threads > 1 else ""]))

    @property
    def title(self) -> str:
        """With the family."""
        return f"{self.family}: {self.name}"

    def ratio(self, contender: str, baseline: str = BASELINE) -> Ratio | None:
        """The baseline's time over the contender's; None where one of them was not measured."""
        if contender not in self.figures or baseline not in self.figures:
            return None
        ours, theirs = self.figures[contender], self.figures[baseline]
        value = theirs.median / ours.median
        by_pass = [two / one for one, two in zip(ours.passes, theirs.passes, strict=False)]
        return Ratio(value, math.expm1(max(abs(math.log(one / value)) for one in by_pass)))


@dataclass(frozen=True)
class Results:
    """One run."""

    machine: Mapping[str, str]
    measured: str
    revision: str
    rows: tuple[Row, ...]
    own: Mapping[str, Any]
    #: Of the machine, by the number of threads.
    limits: Mapping[int, Limits]

    def limit(self, row: Row) -> float | None:
        """Seconds that the row takes at least on this machine; None where that was not measured."""
        limits = self.limits.get(row.threads)
        return limits.seconds(row.flops, row.bytes, row.dtype) if limits else None

    def share(self, row: Row, contender: str) -> float | None:
        """Of the limit that the contender reaches; above 1 where it needs fewer operations than are counted."""
        limit = self.limit(row)
        return limit / row.figures[contender].median if limit and contender in row.figures else None

    @cached_property
    def timed(self) -> list[Row]:
        """The rows but those of first calls."""
        return [row for row in self.rows if row.suite != "first calls"]

    @cached_property
    def contenders(self) -> list[str]:
        """All, ours first, then the baseline."""
        found = dict.fromkeys(name for row in self.timed for name in row.figures)
        first = [name for name in (*OWN, BASELINE) if name in found]
        return [*first, *(name for name in found if name not in first)]

    @cached_property
    def noise(self) -> float:
        """What is usual in this run: the median over rows and contenders."""
        return statistics.median(
            [figure.noise for row in self.timed for figure in row.figures.values()] or [0.0]
        )

    def ratios(self, contender: str, baseline: str = BASELINE) -> dict[Row, Ratio]:
        """Of the rows that both were measured in; the noise of each is at least what is usual in this run."""
        found = {row: ratio for row in self.timed if (ratio := row.ratio(contender, baseline))}
        usual = statistics.median([ratio.noise for ratio in found.values()] or [0.0])
        return {row: Ratio(ratio.value, max(ratio.noise, usual)) for row, ratio in found.items()}

    @cached_property
    def compared(self) -> list[tuple[str, str, dict[Row, Ratio]]]:
        """Each of ours against NumPy, then the best of ours against each rival: name, baseline, ratios."""
        ours = [name for name in self.contenders if name in OWN]
        rivals = [name for name in self.contenders if name not in (*OWN, BASELINE)]
        pairs = [(name, BASELINE) for name in ours] + [(name, rival) for rival in rivals for name in ours[:1]]
        tables = [(name, baseline, self.ratios(name, baseline)) for name, baseline in pairs]
        return [table for table in tables if table[2]]


def load(path: Path) -> Results:
    """The results in `path`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    try:
        return parse(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ResultsError(
            f"{path} was not written by `python -m fastnn bench`: {type(error).__name__}: {error}"
        ) from error


def parse(document: Mapping[str, Any]) -> Results:
    """The results in the JSON."""
    own = {"failures": [], "left_out": [], "unavailable": {}, "plan": {}, **document["fastnn"]}
    if own["schema"] != SCHEMA:
        raise ValueError(f"its schema is {own['schema']!r}; expected {SCHEMA}")
    own["failures"] = [
        {name: str(failure[name]) for name in ("contender", "row", "reason")} for failure in own["failures"]
    ]
    own["left_out"] = list(map(str, own["left_out"]))
    own["unavailable"] = {str(name): str(reason) for name, reason in own["unavailable"].items()}
    own["plan"] = dict(own["plan"])
    rows: dict[tuple[Any, ...], Row] = {}
    for benchmark in document["benchmarks"]:
        params, extra = benchmark["params"], benchmark["extra_info"]
        row = Row(
            suite=str(extra["suite"]),
            family=str(extra["family"]),
            kernel=str(params["kernel"]),
            workload=str(params["workload"]),
            dtype=str(params["dtype"]),
            threads=int(params["threads"]),
            flops=float(extra.get("flops", 0)),
            bytes=float(extra.get("bytes", 0)),
        )
        row = rows.setdefault(row.key, row)
        row.figures[str(params["backend_name"])] = _figure(benchmark["stats"], extra)
    machine = {str(name): str(value) for name, value in document["machine_info"]["fastnn"].items()}
    revision = str(document["commit_info"]["id"])[:12] + ("+" if document["commit_info"]["dirty"] else "")
    limits = {int(threads): Limits.parse(given) for threads, given in own["limits"].items()}
    return Results(machine, str(document["datetime"]), revision, tuple(rows.values()), own, limits)


def _figure(stats: Mapping[str, Any], extra: Mapping[str, Any]) -> Figure:
    given = [stats[name] for name in ("median", "q1", "q3")]
    passes = tuple(map(float, extra.get("passes") or given[:1]))
    for seconds in (*given, *passes):
        if not 0 < seconds < math.inf:
            raise ValueError(f"a time of {seconds!r} seconds")
    return Figure(float(given[0]), float(given[1]), float(given[2]), passes)


# ----------------------------------------------------------------------------------------------------
# Text


def duration(seconds: float) -> str:
    """With a unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def geometric_mean(ratios: Iterable[Ratio]) -> float:
    """Of their values."""
    return statistics.geometric_mean(ratio.value for ratio in ratios)


def text(results: Results) -> str:
    """For the terminal: a line for each row, what it comes to, and every loss."""
    lines = ["interrupted: what is here was measured before"] if results.own.get("interrupted") else []
    for row in results.timed:
        times = ", ".join(f"{name} {duration(figure.median)}" for name, figure in row.figures.items())
        best = next((name for name in OWN if name in row.figures), None)
        share = results.share(row, best) if best else None
        told = "" if share is None else f"; {best} at {share:.0%} of the limit"
        lines.append(f"{row.title}: {times}{told}")
    lines.append("")
    for name, baseline, ratios in results.compared:
        verdicts = [ratio.verdict for ratio in ratios.values()]
        lines.append(
            f"{baseline} / {name}: {_rows(len(ratios))}, geometric mean {geometric_mean(ratios.values()):.2f}, "
            f"{verdicts.count('win')} won, {verdicts.count('even')} even, {verdicts.count('loss')} lost"
        )
        lines += [
            f"  lost: {row.title}: {ratio.value:.2f}, noise {ratio.noise:.1%}"
            for row, ratio in ratios.items()
            if ratio.verdict == "loss"
        ]
    lines += [f"left out of a quick run: {name}" for name in results.own["left_out"]]
    lines += [f"limits, threads {threads}: {limits}" for threads, limits in results.limits.items()]
    return "\n".join([*lines, f"noise of a time: {results.noise:.1%}, the median over rows"])


def _rows(count: int) -> str:
    return f"{count} row{'s' if count != 1 else ''}"
