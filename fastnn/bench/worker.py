"""The process that measures: `python -m fastnn.bench.worker PLAN.json JOURNAL`.

Its threads were pinned by the command that started it. It appends a line to the journal before a contender is called
for the first time and after each row of each pass; so whoever starts it again after a crash knows who crashed, and
goes on where it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import fastnn
from fastnn._contract import KERNELS
from fastnn.bench import rows as bench_rows
from fastnn.bench.rows import (
    Call,
    Row,
    Work,
    call_rows,
    failure_of,
    kernel_rows,
    small_enough,
    too_long,
    verify,
)
from fastnn.bench.timing import QUICK, ContenderError, Patience, clock_for, interleaved

#: Who compiles when it is first called.
COMPILING = ("numba", "jax")
#: The rows of the rivals and of whole networks, which are part of the sources only.
SCRIPTS = Path(fastnn.__file__).parents[1] / "benchmarks"
#: Seconds between turns where several threads of other libraries may still spin.
PAUSE = 0.25
INTERRUPTED = 130


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    threads: int = 1
    passes: int = 3
    quick: bool = False
    only: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = bench_rows.DTYPES[:1]
    largest: float | None = None
    rivals: bool = False

    @classmethod
    def read(cls, path: Path) -> Plan:
        """From the JSON that the command wrote."""
        given = json.loads(path.read_text(encoding="utf-8"))
        settings: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in given.items()
        }
        return cls(**settings)

    @property
    def patience(self) -> Patience:
        """How long a row is measured in one pass."""
        return QUICK if self.quick else Patience()

    def rows(self) -> Iterator[Row]:
        """The rows of the kernels that are asked for."""
        for row in (*kernel_rows(self.dtypes), *call_rows(self.dtypes)):
            names = {row.kernel, row.family, KERNELS[row.kernel].family}
            if not self.only or names.intersection(self.only):
                yield row

    def rival_works(self) -> Iterator[tuple[str, Iterator[Work]]]:
        """The families of the rivals' rows, each with its rows that are asked for."""
        families = rival_families() if self.rivals else {}
        names_of_kernels = set(self.only).difference(families)
        for family, make in families.items():
            if not self.only or family in self.only or names_of_kernels:
                yield family, map(_by_backend, filter(partial(self._wants, family), make()))

    def _wants(self, family: str, work: Work) -> bool:
        return not self.only or family in self.only or work.name.startswith(self.only)


def _by_backend(work: Work) -> Work:
    """What the rivals' rows call fastnn is the backend behind the public names."""

    def named(calls: Mapping[str, Call]) -> dict[str, Call]:
        own = fastnn.report()[0].backend
        return {own if name == "fastnn" else name: call for name, call in calls.items()}

    return replace(work, contenders=named(work.contenders), answers=work.answers and named(work.answers))


def rival_families() -> dict[str, Callable[[], Iterator[Work]]]:
    """What makes the rows with rivals, by family: kernels, and whole networks."""
    return {**load_script("rivals").FAMILIES, "networks": load_script("networks").rows}


def load_script(name: str) -> ModuleType:
    """A module of benchmarks/, whose scripts are in no package; its neighbours are on the path, as when it is run."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return importlib.import_module(name)


class Journal:
    """The lines that are there already, and those that are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = read_journal(path)

    def add(self, event: str, **what: Any) -> None:
        """One more line, at once."""
        entry = {"event": event, **what}
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The whole lines; one that was being written when its process died is none."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Bench:
    """One process's part of a plan."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.clock = getattr(time, clock_for(plan.threads))
        self.done = {
            (entry["row"], entry["pass"]) for entry in journal.entries if entry["event"] == "measured"
        }
        self.failed = {
            (entry["row"], entry["contender"]) for entry in journal.entries if entry["event"] == "failed"
        }
        self.verified: set[str] = set()
        self.compiled = {
            (entry["facts"]["kernel"], entry["facts"]["dtype"], entry["contender"])
            for entry in journal.entries
            if entry["event"] == "first call"
        }

    def run(self) -> None:
        """All passes over all rows."""
        asked = list(self.plan.rows())
        rows = small_enough(asked, self.plan.largest)
        works = [
            (f"{family}: {work.name}", too_long(work, self.plan.largest)) for family, work in self._works()
        ]
        left_out = [f"{row.family}: {row.name}" for row in asked if row not in rows]
        left_out += [name for name, long in works if long]
        self.journal.add("left out", rows=left_out)
        with _bar((len(asked) + len(works) - len(left_out)) * self.plan.passes) as bar:
            for number in range(self.plan.passes):
                for row in rows:
                    bar.set_postfix_str(row.name, refresh=False)
                    self._row(row, number)
                    bar.update()
                for family, work in self._works():
                    if not too_long(work, self.plan.largest):
                        bar.set_postfix_str(work.name, refresh=False)
                        what = {"family": family, "kernel": work.name, "workload": "", "dtype": work.dtype}
                        self._measure(f"{family}: {work.name}", what, "rivals", work, number)
                        bar.update()

    def _works(self) -> Iterator[tuple[str, Work]]:
        """The rows with rivals, each with its family; those of a family up to one that cannot be made."""
        for family, made in self.plan.rival_works():
            try:
                for work in made:
                    yield family, work
            except Exception as problem:
                if (family, "rivals") not in self.failed:
                    reason = f"the rows cannot be made: {type(problem).__name__}: {problem}"
                    self._fail(family, "rivals", reason)

    def _row(self, row: Row, number: int) -> None:
        name = f"{row.family}: {row.name}"
        if (name, number) in self.done or (name, "all") in self.failed:
            return
        try:
            work = row.make([one for one in self.plan.backends if self._has(one, row.kernel, name)])
        except Exception as problem:
            self._fail(name, "all", f"the arrays cannot be made: {type(problem).__name__}: {problem}")
            return
        what = {"family": row.family, "kernel": row.kernel, "workload": row.workload, "dtype": row.dtype}
        self._measure(name, what, "calls" if row.family == bench_rows.CALLS else "kernels", work, number)

    def _has(self, backend: str, kernel: str, name: str) -> bool:
        """Whether the backend has its own version of the kernel."""
        try:
            bench_rows.own_function(backend, kernel)
        except LookupError as problem:
            if (name, backend) not in self.failed:
                self._fail(name, backend, str(problem))
            return False
        return True

    def _measure(self, name: str, what: Mapping[str, str], suite: str, work: Work, number: int) -> None:
        """One pass of one row: right answers first, then the time of all who gave them."""
        if (name, number) in self.done:
            return
        contenders = {
            contender: call
            for contender, call in work.contenders.items()
            if (name, contender) not in self.failed and self._verified(name, what, work, contender)
        }
        self.verified.add(name)
        pause = PAUSE if suite == "rivals" and self.plan.threads > 1 else 0.0
        patience = replace(self.plan.patience, pause=pause)
        while contenders:
            self.journal.add("timing", row=name, contenders=list(contenders))
            try:
                seconds, calls = interleaved(contenders, self.clock, patience)
                if work.afterwards is not None:
                    work.afterwards()
            except ContenderError as problem:
                self._fail(name, problem.contender, str(problem))
                del contenders[problem.contender]
            except AssertionError as problem:
                self._fail(name, ", ".join(contenders), str(problem))
                return
            else:
                facts = {"suite": suite, "flops": work.flops, "bytes": work.bytes, **what}
                measured = {"row": name, "pass": number, "facts": facts, "calls": calls, "seconds": seconds}
                self.journal.add("measured", **measured)
                return

    def _verified(self, name: str, what: Mapping[str, str], work: Work, contender: str) -> bool:
        """Whether the contender's answer is right, or was in a pass before."""
        if name in self.verified:
            return True
        self.journal.add("begun", row=name, contender=contender)
        return self._answers(name, what, work, contender)

    def _answers(self, name: str, what: Mapping[str, str], work: Work, contender: str) -> bool:
        """Whether the contender gives the right answer; its first call may be that of a compiler."""
        try:
            elapsed = verify(work, contender)
        except Exception as problem:
            self._fail(name, contender, failure_of(problem))
            return False
        compiled = what["kernel"], what["dtype"], contender
        if contender in COMPILING and compiled not in self.compiled:
            self.compiled.add(compiled)
            self.journal.add("first call", row=name, facts=dict(what), contender=contender, seconds=elapsed)
        return True

    def _fail(self, name: str, contender: str, reason: str) -> None:
        self.failed.add((name, contender))
        self.journal.add("failed", row=name, contender=contender, reason=reason)


def _bar(total: int) -> Any:
    """A bar with the time left, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=total, unit="row", dynamic_ncols=True, smoothing=0.05)


class _NoBar:
    """What is there of a bar without tqdm."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def update(self) -> None:
        """Nothing to show."""

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        """Nothing to show."""


def main(plan_path: str, journal_path: str) -> int:
    """Measure; the exit status."""
    from threadpoolctl import threadpool_limits

    plan = Plan.read(Path(plan_path))
    if plan.rivals and hasattr(os, "sched_setaffinity"):
        # JAX reads no variable: it has as many threads as the process has processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan.threads])
    journal = Journal(Path(journal_path))
    try:
        with threadpool_limits(limits=plan.threads):
            Bench(plan, journal).run()
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
