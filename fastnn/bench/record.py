"""From the journal to the JSON of pytest-benchmark, with what the figures depend on."""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import _select
from fastnn.bench.timing import clock_for

#: Of what this module adds to the JSON of pytest-benchmark.
SCHEMA = 1
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
#: The distributions whose versions are told.
RIVALS = {
    "scipy": "scipy",
    "scikit-learn": "scikit-learn",
    "torch": "torch",
    "jax": "jax",
    "onnxruntime": "onnxruntime",
}


def document(
    journals: Mapping[int, Sequence[Mapping[str, Any]]], machine: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """What pytest-benchmark would write; `own` and who failed stand beside it under "fastnn"."""
    import pytest_benchmark

    benchmarks = [
        row for threads, entries in journals.items() for row in _benchmarks(_measured(entries), threads)
    ]
    benchmarks += [
        _first_call(entry, threads)
        for threads, entries in journals.items()
        for entry in _first_calls(entries)
    ]
    failures = [
        {"threads": threads, **{key: entry[key] for key in ("row", "contender", "reason")}}
        for threads, entries in journals.items()
        for entry in entries
        if entry["event"] == "failed"
    ]
    left_out = dict.fromkeys(
        name
        for entries in journals.values()
        for entry in entries
        if entry["event"] == "left out"
        for name in entry["rows"]
    )
    return {
        "machine_info": dict(machine),
        "commit_info": commit_info(),
        "benchmarks": benchmarks,
        "datetime": datetime.now(UTC).isoformat(),
        "version": pytest_benchmark.__version__,
        "fastnn": {"schema": SCHEMA, **own, "failures": failures, "left_out": list(left_out)},
    }


def _measured(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The passes of each row."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry["event"] == "measured":
            rows.setdefault(entry["row"], []).append(entry)
    return rows


def _benchmarks(rows: Mapping[str, list[Mapping[str, Any]]], threads: int) -> list[dict[str, Any]]:
    """One benchmark for each contender of a row, whose data are the rounds of all passes."""
    written = []
    for passes in rows.values():
        facts = passes[0]["facts"]
        for contender in passes[0]["seconds"]:
            made = [one for one in passes if contender in one["seconds"]]
            rounds = [seconds for one in made for seconds in one["seconds"][contender]]
            extra = {
                **{key: facts[key] for key in ("suite", "family", "flops", "bytes")},
                "calls": made[0]["calls"][contender],
                "threads": threads,
                "passes": [statistics.median(one["seconds"][contender]) for one in made],
            }
            written.append(_benchmark(facts, contender, threads, rounds, extra))
    return written


def _first_calls(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["event"] == "first call"]


def _first_call(entry: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """The call that waits for a compiler, on a row of its own."""
    facts = {**entry["facts"], "workload": "first call"}
    extra = {"suite": "first calls", "family": facts["family"], "threads": threads, "calls": 1}
    return _benchmark(facts, entry["contender"], threads, [entry["seconds"]], extra)


def _benchmark(
    facts: Mapping[str, Any], contender: str, threads: int, rounds: list[float], extra: dict[str, Any]
) -> dict[str, Any]:
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for seconds in rounds:
        stats.update(seconds)
    group = "-".join(filter(None, (facts["kernel"], facts["workload"], facts["dtype"])))
    name = f"test_row[{group}-{contender}-threads{threads}]"
    params = {key: facts[key] for key in ("kernel", "workload", "dtype")}
    clock = "perf_counter" if extra["suite"] == "first calls" else clock_for(threads)
    return {
        "group": group,
        "name": name,
        "fullname": f"benchmarks/{extra['family']}::{name}",
        "params": {**params, "backend_name": contender, "threads": threads},
        "param": f"{group}-{contender}-threads{threads}",
        "extra_info": extra,
        "options": {"disable_gc": True, "timer": clock, "warmup": True},
        "stats": {**stats.as_dict(), "iterations": extra["calls"]},
    }


def machine_info(threads: Sequence[int], *, rivals: bool = False) -> dict[str, Any]:
    """pytest-benchmark's, with what the figures depend on in the words of the report."""
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    info: dict[str, Any] = pytest_benchmark_generate_machine_info()
    info["fastnn"] = {
        "processor": info["cpu"].get("brand_raw") or platform.processor() or platform.machine(),
        "instruction set": _select.instruction_set()[0] or "none compiled",
        "governor": _governor(),
        "threads": ", ".join(map(str, threads)),
        "clock": ", ".join(dict.fromkeys(f"time.{clock_for(count)}" for count in threads)),
        "system": f"{platform.system()} {platform.machine()}",
        "fastnn": fastnn.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "BLAS": ", ".join(_blas()) or "unknown",
        "Numba": _version("numba"),
        **({name: _version(distribution) for name, distribution in RIVALS.items()} if rivals else {}),
    }
    return info


def commit_info() -> dict[str, Any]:
    """The revision of fastnn's sources, where it runs from a checkout."""
    from pytest_benchmark.utils import get_commit_info

    with contextlib.chdir(Path(fastnn.__file__).parents[1]):
        info: dict[str, Any] = get_commit_info("fastnn")
    return info


def _governor() -> str:
    try:
        return GOVERNOR.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def _blas() -> list[str]:
    """The libraries behind matmul."""
    from threadpoolctl import threadpool_info

    described = "{internal_api} {version} {architecture}"
    return [
        described.format_map({"architecture": ""} | library).strip()
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def encoded(result: Mapping[str, Any]) -> bytes:
    """The JSON, as a file has it."""
    return json.dumps(result, indent=1).encode()
