"""`info`: what a bug report needs."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib import metadata

import fastnn
from fastnn import _select, _threads


def info() -> str:
    """What there is to know for a bug report: machine, versions, and who stands behind each kernel."""
    folder, why_not = _select.instruction_set()
    lines = [
        f"fastnn           {fastnn.__version__}",
        f"python           {platform.python_version()} {platform.python_implementation()} on {platform.platform()}",
        f"processor        {_processor()}, {os.cpu_count()} CPUs",
        f"instruction set  {folder or 'none compiled'}{f' ({why_not})' if why_not else ''}",
        f"compiler         {_select.compiler() or 'none'}",
        f"threads          {_threads.describe()}",
        f"versions         {', '.join(_versions())}",
        f"environment      {', '.join(_settings()) or 'no FASTNN_* variable set'}",
    ]
    for name in _select.BACKENDS:
        reason = _select.why_unavailable(name)
        lines.append(f"backend {name:8} {f'not available: {reason}' if reason else 'available'}")
    report = fastnn.report()
    counts = ", ".join(f"{count} {name}" for name, count in Counter(row.backend for row in report).items())
    return "\n".join([*lines, "", f"{len(report)} kernels: {counts}", str(report)])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> list[str]:
    found = []
    for name in ("numpy", "numba", "llvmlite", "cython", "scikit-learn", "safetensors", "matplotlib"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


def _settings() -> list[str]:
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("FASTNN_")]
