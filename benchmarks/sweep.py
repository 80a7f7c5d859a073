"""The picture of README: what a call takes from 1 to 10 million elements, and the elements a second.

    python benchmarks/sweep.py [--draw]

All backends and the rivals that are installed take turns, on one thread. The figures are kept in docs/sweep.json, and
the picture is docs/sweep.svg; with --draw it is only drawn again. It needs matplotlib (extra "report").
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn.bench import record
from fastnn.bench.command import THREAD_VARIABLES
from fastnn.bench.page import COLOURS
from fastnn.bench.rows import Call, Statement, Work, own_function, verify
from fastnn.bench.timing import Patience, clock_for, interleaved

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT, PICTURE = DOCS / "sweep.json", DOCS / "sweep.svg"
SIZES = tuple(10**exponent for exponent in range(8))
#: Kernels that memory and that arithmetic limits, each with what one would write in NumPy.
EXPRESSIONS = {"relu": "np.maximum(x, 0, out=y)", "tanh": "np.tanh(x, out=y)"}
PATIENCE = Patience(seconds=0.1, least=7)
#: How often all sizes are measured: the median counts.
PASSES = 3


def work(kernel: str, size: int) -> Work:
    """One size of one kernel: into an array that exists where the library has a way to say so."""
    import rivals  # and with it every library that is there, which drawing does not need

    x = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    names = {"np": np, "x": x, "y": np.empty_like(x)}
    ours = {
        name: Statement("function(x, out=y)", {**names, "function": own_function(name, kernel)})
        for name in fastnn.available_backends()
        if name != "numpy"
    }
    contenders: dict[str, Call | None] = {
        "numpy": Statement(EXPRESSIONS[kernel], names),
        **ours,
        "torch": in_torch(kernel, x, names["y"]),
        "jax": rivals.jitted(getattr(rivals.jax.nn, kernel), x) if rivals.jax else None,
        "onnxruntime": rivals.in_onnx(kernel.capitalize(), {"x": x}),
    }
    exact = partial(getattr(fastnn.backend("numpy"), kernel), x.astype(np.float64))
    return Work(f"{kernel} {size}", 0, 2.0 * x.nbytes, exact, rivals.present(**contenders))


def in_torch(kernel: str, x: np.ndarray, y: np.ndarray) -> Call | None:
    """PyTorch's own function that takes `out`."""
    import rivals

    if rivals.torch is None:
        return None
    functions = {
        "relu": lambda x, y: rivals.torch.clamp_min(x, 0, out=y),
        "tanh": lambda x, y: rivals.torch.tanh(x, out=y),
    }
    return rivals.in_torch(functions[kernel], x, y)


def measure() -> dict[str, Any]:
    """Seconds by kernel, contender and size, and the machine."""
    clock: Callable[[], float] = getattr(time, clock_for(1))
    passes: dict[str, dict[str, dict[int, list[float]]]] = {}
    for number in range(PASSES):
        for kernel in EXPRESSIONS:
            for size in SIZES:
                row = work(kernel, size)
                for contender in row.contenders:
                    verify(row, contender)
                seconds, _ = interleaved(row.contenders, clock, PATIENCE)
                for contender, rounds in seconds.items():
                    by_size = passes.setdefault(kernel, {}).setdefault(contender, {})
                    by_size.setdefault(size, []).append(statistics.median(rounds))
                sys.stderr.write(f"pass {number + 1} of {PASSES}: {row.name}\n")
    medians = {
        kernel: {
            contender: [[size, float(f"{statistics.median(given):.4g}")] for size, given in by_size.items()]
            for contender, by_size in contenders.items()
        }
        for kernel, contenders in passes.items()
    }
    machine = record.machine_info([1], rivals=True)["fastnn"]
    return {"machine": machine, "measured": time.strftime("%Y-%m-%d"), "seconds": medians}


def written(kept: Mapping[str, Any]) -> str:
    """JSON with a line for each contender."""
    kernels = [
        f'"{kernel}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(points)}' for name, points in contenders.items())
        + "\n}"
        for kernel, contenders in kept["seconds"].items()
    ]
    rest = {name: value for name, value in kept.items() if name != "seconds"}
    return json.dumps(rest)[:-1] + ',\n"seconds": {\n' + ",\n".join(kernels) + "\n}}\n"


def draw(kept: Mapping[str, Any], path: Path) -> None:
    """For each kernel the time of a call, and the elements a second, over the size."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "fastnn", "font.size": 9, "axes.grid": True}
    with matplotlib.rc_context({**style, "grid.alpha": 0.3}):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        axes = figure.subplots(2, len(kept["seconds"]), sharex=True, sharey="row", squeeze=False)
        for column, (kernel, contenders) in enumerate(kept["seconds"].items()):
            upper, lower = axes[:, column]
            for colour, (contender, points) in zip(COLOURS, _ordered(contenders), strict=False):
                sizes, seconds = np.array(points).T
                line = {"color": colour, "marker": ".", "linewidth": 2 if contender == "cython" else 1}
                upper.loglog(sizes, seconds, label=contender, **line)
                lower.loglog(sizes, sizes / seconds, **line)
            upper.set_title(f"fastnn.{kernel}, float32, out=")
            lower.set_xlabel("elements")
            for one in (upper, lower):
                one.minorticks_off()
        axes[0, 0].set_ylabel("seconds of a call")
        axes[1, 0].set_ylabel("elements a second")
        axes[0, 0].legend()
        machine = kept["machine"]
        figure.suptitle(
            f"{machine['processor']}, {machine['instruction set']}, one thread, {kept['measured']}",
            fontsize=9,
        )
        figure.savefig(path, metadata={"Date": None})


def _ordered(contenders: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Ours first, as their colours are elsewhere."""
    first = ("cython", "numba", "numpy")
    return sorted(contenders.items(), key=lambda one: first.index(one[0]) if one[0] in first else len(first))


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    if not parser.parse_args().draw:
        pinned = dict.fromkeys(THREAD_VARIABLES, "1")
        if any(os.environ.get(name) != value for name, value in pinned.items()):
            # libraries read the variables when they are imported: start again with them
            return subprocess.call([sys.executable, *sys.argv], env={**os.environ, **pinned})
        KEPT.write_text(written(measure()), encoding="utf-8")
    draw(json.loads(KEPT.read_text(encoding="utf-8")), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
