"""The command `python -m fastnn bench`.

It measures nothing itself: for each number of threads it starts a process whose libraries are held to that many
before they are imported, and starts it again, without the contender at fault, where it crashed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnn import _select
from fastnn._contract import KERNELS
from fastnn.bench import page, record, results
from fastnn.bench.compare import MARGIN, compare
from fastnn.bench.limits import all_threads
from fastnn.bench.limits import measure as measure_limits
from fastnn.bench.rows import BACKENDS, CALLS, DTYPES
from fastnn.bench.worker import INTERRUPTED, SCRIPTS, Journal, Plan, read_journal, rival_families
from fastnn.io import write_whole

#: What holds each library to a number of threads, before it is imported.
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "FASTNN_NUM_THREADS",
)
OUTPUT = Path(".benchmarks") / "latest.json"
PASSES, QUICK_PASSES = 3, 2
#: The most elements that a quick run has patience for.
QUICK_LARGEST = 1e7
WORKER = (sys.executable, "-m", "fastnn.bench.worker")
NEEDED = ("pytest_benchmark", "threadpoolctl")


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnn bench",
        description="Measure every kernel by every backend.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    try:
        with _terminated_is_interrupted():
            return run(parser.parse_args(arguments), parser)
    except OSError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything was measured\n")
        return INTERRUPTED


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A job that is ended from outside keeps what was measured, as after Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def names(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def counts(text: str) -> tuple[int, ...]:
    """Numbers of threads."""
    given = tuple(map(int, names(text)))
    if not given or min(given) < 1:
        raise ValueError
    return given


def percentage(text: str) -> float:
    """A fraction, from a number that may have its sign."""
    value = float(text.removesuffix("%")) / 100
    if not 0 <= value < 10:
        raise ValueError
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without the longest workloads")
    parser.add_argument(
        "--only", type=names, default=(), metavar="NAMES", help="kernels or families, with commas between"
    )
    parser.add_argument(
        "--backends", type=names, default=(), metavar="NAMES", help="numpy, cython, numba; default: all here"
    )
    parser.add_argument("--dtypes", type=names, default=DTYPES[:1], metavar="NAMES", help="default: float32")
    parser.add_argument(
        "--rivals", action="store_true", help="also PyTorch, JAX, ONNX Runtime, ... (checkout)"
    )
    parser.add_argument("--threads", type=counts, default=(1,), metavar="1,2", help="default: 1")
    parser.add_argument(
        "--html", type=Path, metavar="PAGE.html", help="a page for readers; needs the extra report"
    )
    parser.add_argument(
        "--show", type=Path, metavar="MEASURED.json", help="an earlier run again, instead of a new one"
    )
    parser.add_argument("--json", type=Path, default=OUTPUT, help=f"what is written; default: {OUTPUT}")

    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="fail where a row became slower than there"
    )
    parser.add_argument(
        "--margin",
        type=percentage,
        default=MARGIN,
        metavar="PERCENT",
        help=f"what a row may be slower by, beside noise; default: {100 * MARGIN:g}",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Measure, write and report; the exit status."""
    _refuse_unknown(asked, parser)
    try:
        old = results.load(asked.compare) if asked.compare else None
        shown = results.load(asked.show) if asked.show else None
    except results.ResultsError as error:
        parser.error(str(error))
    status = 0
    if shown is None:
        status, document = _measured(asked)
        if document is None:
            sys.stderr.write("nothing was measured\n")
            return status or 1
        shown = results.parse(document)
    comparison = compare(old, shown, asked.margin) if old else None
    sys.stdout.write(results.text(shown) + "\n")
    if comparison:
        sys.stdout.write(f"\ncompared with {asked.compare}\n{comparison}\n")
    if asked.html:
        asked.html.parent.mkdir(parents=True, exist_ok=True)
        write_whole(asked.html, page.render(shown, comparison, str(asked.compare)).encode())
        sys.stderr.write(f"the page is {asked.html}\n")
    wrong = any(failure["contender"] in BACKENDS for failure in shown.own["failures"])
    return status or int(wrong or bool(comparison and comparison.failed))


def _measured(asked: argparse.Namespace) -> tuple[int, dict[str, Any] | None]:
    """The exit status, and what was measured and written, if anything."""
    unavailable = {name: reason for name in BACKENDS if (reason := _select.why_unavailable(name))}
    backends = tuple(name for name in BACKENDS if name in (asked.backends or BACKENDS))
    for name in unavailable:
        sys.stderr.write(f"{name} is left out: {unavailable[name]}\n")
    plan = Plan(
        passes=QUICK_PASSES if asked.quick else PASSES,
        quick=asked.quick,
        only=asked.only,
        backends=tuple(name for name in backends if name not in unavailable),
        dtypes=asked.dtypes,
        largest=QUICK_LARGEST if asked.quick else None,
        rivals=asked.rivals,
    )
    if max(asked.threads) > all_threads():
        sys.stderr.write(f"more threads than processors: {max(asked.threads)} on {all_threads()}\n")
    sys.stderr.write("measuring what the machine can do\n")
    limits = {
        str(count): measure_limits(count).as_json() for count in sorted({1, *asked.threads, all_threads()})
    }
    status, journals = _journals(plan, asked.threads)
    entries = [entry for journal in journals.values() for entry in journal]
    for failure in (entry for entry in entries if entry["event"] == "failed"):
        sys.stderr.write("{contender} failed at {row}: {reason}\n".format_map(failure))
    if not any(entry["event"] == "measured" for entry in entries):
        return status, None
    own = {
        "plan": {**dataclasses.asdict(plan), "threads": asked.threads},
        "complete": not (status or asked.quick or asked.only or asked.backends),
        "interrupted": status == INTERRUPTED,
        "unavailable": unavailable,
        "limits": limits,
    }
    document = record.document(journals, record.machine_info(asked.threads, rivals=asked.rivals), own)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked.json, record.encoded(document))
    interrupted = "\ninterrupted; " if status == INTERRUPTED else ""  # below the bar, which ends in mid-line
    sys.stderr.write(f"{interrupted}{len(document['benchmarks'])} benchmarks are in {asked.json}\n")
    return status, document


def _journals(plan: Plan, threads: Sequence[int]) -> tuple[int, dict[int, list[dict[str, Any]]]]:
    """The exit status, and what the processes wrote down, by their number of threads."""
    journals, status = {}, 0
    with tempfile.TemporaryDirectory(prefix="fastnn-bench-") as folder:
        for count in threads:
            if status != INTERRUPTED:
                journal = Path(folder) / f"{count}.jsonl"
                status = max(status, measure(dataclasses.replace(plan, threads=count), journal))
                journals[count] = read_journal(journal)
    return status, journals


def _refuse_unknown(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Errors of the command line: names that nothing has, and what is not installed."""
    extras = {"bench": NEEDED, "report": page.NEEDED if asked.html else ()}
    for extra, needed in extras.items():
        if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
            parser.error(
                f'{", ".join(missing)} missing; install the extra: pip install "fastnn-kernels[{extra}]"'
            )
    families = {CALLS, *KERNELS, *(kernel.family for kernel in KERNELS.values())}
    if asked.rivals:
        if not SCRIPTS.exists():
            parser.error(f"--rivals needs a checkout of fastnn's sources: {SCRIPTS} is not there")
        families.update(rival_families())
    known = {"only": families, "backends": set(BACKENDS), "dtypes": set(DTYPES)}
    for option, expected in known.items():
        unknown = [name for name in getattr(asked, option) if name not in expected]
        if unknown:
            more = "; --rivals has others, as networks" if option == "only" and not asked.rivals else ""
            listed = f"known are {', '.join(sorted(expected))}{more}"
            parser.error(f"--{option}: unknown {', '.join(unknown)}; {listed}")


def measure(plan: Plan, journal: Path) -> int:
    """Have a process measure until it ends well, without those that make it crash; its exit status."""
    path = journal.with_suffix(".plan")
    path.write_text(json.dumps(dataclasses.asdict(plan)), encoding="utf-8")
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(plan.threads))}
    line = [*WORKER, str(path), str(journal)]
    while True:
        status = _wait(subprocess.Popen(line, env=environment))
        if status in (0, INTERRUPTED) or not blame(Journal(journal), status):
            return status


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit status; Ctrl-C ends the process, and what it measured stays, however often the keys are pressed."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.terminate()
        process.wait()
        signal.signal(signal.SIGINT, before)
        return INTERRUPTED


def blame(journal: Journal, status: int) -> bool:
    """Write down who was running when the process died; False where nobody was."""
    last = journal.entries[-1] if journal.entries else {"event": "nothing"}
    suspects: Sequence[str] = ()
    if last["event"] == "begun":
        suspects = [last["contender"]]
    elif last["event"] == "timing":
        suspects = last["contenders"]
    reason = f"the process ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"
    for contender in suspects:
        journal.add("failed", row=last["row"], contender=contender, reason=reason)
    return bool(suspects)
