"""Measure and report: what `make bench` runs.

    python benchmarks/run.py [--quick] [--only conv,relu] [--backends numpy,cython] [--dtypes float32,float64]

Everything runs on one thread, in one process. A complete run rewrites README's table, docs/benchmarks.md and
the kept results; a quick or partial one only shows its summary. pytest-benchmark's own JSON stays in
.benchmarks/.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import report

HERE = Path(__file__).resolve().parent
MEASURED = report.ROOT / ".benchmarks" / "latest.json"
#: The variables that hold the BLAS, OpenMP, Numba and fastnn to one thread.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "FASTNN_NUM_THREADS": "1",
}
#: How often the backends of a row take turns, for how many seconds and at least how many rounds a turn.
TURNS, SECONDS, ROUNDS = 3, 0.1, 1
#: The same of a quick run, and the most elements that it has patience for.
QUICK_TURNS, QUICK_SECONDS, QUICK_LARGEST = 2, 0.03, 1e7


def clock() -> str:
    """What pytest-benchmark reads the time from.

    The time of the processor leaves out what other programs took of it, and all work is in one thread. Where its
    clock is coarse (on Windows) it is the time of the day.
    """
    fine = time.get_clock_info("process_time").resolution < 1e-6
    return "time.process_time" if fine else "time.perf_counter"


def command(asked: argparse.Namespace) -> list[str]:
    """The call of pytest that measures what is asked for."""
    options = {
        "benchmark-json": MEASURED,
        "benchmark-max-time": QUICK_SECONDS if asked.quick else SECONDS,
        "benchmark-min-rounds": ROUNDS,
        "benchmark-timer": clock(),
        "bench-turns": QUICK_TURNS if asked.quick else TURNS,
        "bench-dtypes": asked.dtypes,
        "bench-only": asked.only,
        "bench-backends": asked.backends,
        "bench-largest": QUICK_LARGEST if asked.quick else None,
    }
    given = [f"--{name}={value}" for name, value in options.items() if value]
    switches = [
        "--benchmark-enable",
        "--benchmark-only",
        "--benchmark-quiet",
        "--benchmark-disable-gc",
        "--quiet",
    ]
    return [sys.executable, "-m", "pytest", str(HERE), f"--rootdir={report.ROOT}", *switches, *given]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without the longest workloads")
    parser.add_argument("--only", default="", help="kernels or families, with commas between")
    parser.add_argument("--backends", default="", help="numpy, cython, numba; default: all that are here")
    parser.add_argument("--dtypes", default="float32", help="float32, float64; default: float32")
    asked = parser.parse_args(arguments)
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.unlink(missing_ok=True)
    status = subprocess.call(command(asked), env={**os.environ, **ENVIRONMENT}, cwd=report.ROOT)
    if not MEASURED.exists():
        return status
    complete = not (status or asked.quick or asked.only or asked.backends)
    destination = ["--full", str(report.ROOT / "docs" / "benchmarks.md")] if complete else ["--print"]
    return report.main([str(MEASURED), *destination]) or status


if __name__ == "__main__":
    sys.exit(main())
