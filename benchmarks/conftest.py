"""What the benchmarks share: options, rows, the stopwatch, one thread for all, and the machine in the JSON.

A module of benchmarks has `rows()`, which gives (kernel, workload, number of elements), and one test
with the arguments `kernel`, `workload`, `dtype`, `turn` and `backend_name`.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from importlib import metadata
from timeit import Timer
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_info, threadpool_limits

from fastnn import KERNELS, available_backends, backend
from fastnn._select import instruction_set

#: The backends in the order in which they take turns.
BACKENDS = ("numpy", "cython", "numba")
DTYPES = ("float32", "float64")
#: A run that measures nothing leaves out workloads of more elements than this, but for a kernel's smallest.
TESTED = 1e5
#: A round calls a kernel until this many elements have gone through it, but at most so many times: long
#: enough for the clock, short enough that many rounds fit.
ELEMENTS_PER_ROUND, CALLS_PER_ROUND = 1_000_000, 1000

Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which rows are measured, and how often; the defaults are those of a test run."""
    group = parser.getgroup("benchmarks of fastnn")
    group.addoption("--bench-only", type=_names, default=(), help="kernels or families, with commas between")
    group.addoption(
        "--bench-backends", type=_names, default=(), help="numpy, cython, numba; default: all that are here"
    )
    group.addoption(
        "--bench-dtypes", type=_names, default=DTYPES[:1], help="float32, float64; default: float32"
    )
    group.addoption(
        "--bench-turns", type=int, default=1, help="how often the backends of a row take turns; default: 1"
    )
    group.addoption("--bench-largest", type=float, help="leave out workloads of more elements than this")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def pytest_configure(config: pytest.Config) -> None:
    """Refuse unknown names, and hold the BLAS to one thread where it is timed."""
    known = {
        "--bench-only": {*KERNELS, *(kernel.family for kernel in KERNELS.values())},
        "--bench-backends": set(BACKENDS),
        "--bench-dtypes": set(DTYPES),
    }
    for option, names in known.items():
        unknown = [name for name in config.getoption(option) if name not in names]
        if unknown:
            raise pytest.UsageError(
                f"{option}: unknown {', '.join(unknown)}; known are {', '.join(sorted(names))}"
            )
    if _is_timed(config):
        threadpool_limits(limits=1)


def _is_timed(config: pytest.Config) -> bool:
    """Whether this run measures, or just executes each benchmark once as a test."""
    return bool(config.getoption("benchmark_enable")) or not config.getoption("benchmark_disable")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each row, turn and backend: backends that are compared are timed next to each other."""
    config = metafunc.config
    metafunc.parametrize(
        ("kernel", "workload", "dtype", "turn", "backend_name"),
        [
            pytest.param(
                kernel, workload, dtype, turn, name, id=f"{kernel}-{workload}-{dtype}-{name}-turn{turn}"
            )
            for kernel, workload in _chosen(config, metafunc.module.rows())
            for dtype in config.getoption("--bench-dtypes")
            for turn in range(1, config.getoption("--bench-turns") + 1)
            for name in _backends(config)
        ],
    )


def _backends(config: pytest.Config) -> list[str]:
    """The backends that are asked for, or required by FASTNN_TEST_BACKENDS, or here; in order."""
    required = _names(os.environ.get("FASTNN_TEST_BACKENDS", ""))
    wanted = config.getoption("--bench-backends") or required or available_backends()
    return [name for name in BACKENDS if name in wanted]


def _chosen(config: pytest.Config, rows: list[tuple[str, str, float]]) -> list[tuple[str, str]]:
    """Kernel and workload of the rows that are asked for and small enough, or their kernel's smallest."""
    limit = config.getoption("--bench-largest") or (math.inf if _is_timed(config) else TESTED)
    smallest: dict[str, float] = {}
    for kernel, _, elements in rows:
        smallest[kernel] = min(elements, smallest.get(kernel, math.inf))
    only = config.getoption("--bench-only")
    return [
        (kernel, workload)
        for kernel, workload, elements in rows
        if elements <= max(limit, smallest[kernel])
        and (not only or kernel in only or KERNELS[kernel].family in only)
    ]


@pytest.fixture
def function(kernel: str, backend_name: str) -> Callable[..., Any]:
    """The backend's own version of the kernel: what it would fall back to is no measurement of it."""
    (binding,) = (row for row in backend(backend_name).report if row.kernel == kernel)
    assert binding.backend == backend_name, binding.reason
    return binding.function


@pytest.fixture
def measure(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Measure:
    """Time a statement, called so often in a round that neither clock nor harness is in the figure."""

    def measure(statement: str, names: dict[str, Any], *, elements: int, family: str) -> None:
        params = request.node.callspec.params
        calls = (
            min(CALLS_PER_ROUND, math.ceil(ELEMENTS_PER_ROUND / max(elements, 1))) if benchmark.enabled else 1
        )
        benchmark.group = f"{params['kernel']}-{params['workload']}-{params['dtype']}"
        benchmark.extra_info.update(family=family, calls=calls)
        benchmark(Timer(statement, globals=names).timeit, calls)

    return measure


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Write down what the figures depend on, in the words of the report."""
    machine_info["fastnn"] = {
        "processor": machine_info["cpu"].get("brand_raw") or platform.processor() or platform.machine(),
        "instruction set": instruction_set()[0] or "none compiled",
        "threads": "1",
        "clock": str(config.getoption("benchmark_timer")),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "BLAS": ", ".join(_blas()) or "unknown",
        "Numba": _version("numba"),
    }


def _blas() -> list[str]:
    """The libraries behind matmul, with the threads that they have in this very process."""
    return [
        "{internal_api} {version} {architecture}, threads {num_threads}".format_map(
            {"architecture": ""} | library
        )
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Leave out the time of every single round: megabytes that no report reads."""
    for row in output_json["benchmarks"]:
        row["stats"].pop("data", None)
