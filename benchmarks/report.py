"""From the measurements to the tables that people read.

    python benchmarks/report.py [MEASURED.json] [--full docs/benchmarks.md] [--check | --print]

MEASURED.json is what `python -m fastnn bench` wrote or what an earlier report kept; left out, it is the latest of
those kept. A new measurement is cut down to what the report needs and kept in `benchmarks/results/`, in a form that
`python -m fastnn bench` compares with and shows too. The
summary goes between two markers in README, `--full` writes every row to a page of its own. `--check` writes
nothing and fails where the pages do not say what the measurement says; `--print` shows the summary and leaves
all files alone.

A ratio is NumPy's time divided by the backend's, or that of one backend by another's, each the median of all rounds.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from fastnn.bench import results
from fastnn.bench.results import BASELINE, Figure, Results, ResultsError, Row, duration

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
#: Where NumPy takes this many seconds, it is the work that is measured and not the call.
WORK = 1e-4
#: How a backend is written in the tables; one that is not named here is shown as it is.
TITLES = {"numpy": "NumPy", "cython": "Cython", "numba": "Numba"}
#: What is on these pages; rivals and first calls are on others.
SUITES = ("kernels", "calls")
#: What the name of a file of kept results and the line about the machine are made of.
DESCRIBED = ("processor", "instruction set")


def load(path: Path) -> Results:
    """What the report needs of a measurement: backends on one thread, in rows that have NumPy's time.

    Times have four digits, which is more than a clock under a noisy machine is good for.
    """
    measured = results.load(path)
    rows = [_rounded(row) for row in measured.rows if row.suite in SUITES and row.threads == 1]
    if missing := [name for name in DESCRIBED if name not in measured.machine]:
        raise ResultsError(f"{path} does not tell {', '.join(missing)}")
    if not any(BASELINE in row.figures for row in rows):
        raise ResultsError(f"{path} has no row with NumPy's time; measure with the numpy backend too")
    return replace(measured, rows=tuple(row for row in rows if BASELINE in row.figures))


def _rounded(row: Row) -> Row:
    def four(seconds: float) -> float:
        return float(f"{seconds:.4g}")

    figures = {
        name: Figure(four(one.median), four(one.q1), four(one.q3), tuple(map(four, one.passes)))
        for name, one in row.figures.items()
    }
    return replace(row, figures=figures)


def backends(found: Results) -> list[str]:
    """The backends that are compared with NumPy."""
    return [name for name in found.contenders if name != BASELINE]


def stem(found: Results) -> str:
    """The name of the file that keeps these results: the processor and its instruction set."""
    processor, instructions = (found.machine[name] for name in DESCRIBED)
    processor = re.sub(r"\((r|tm)\)|\bcpu\b|@.*", "", processor.lower())
    return "-".join(re.findall(r"[a-z0-9]+", f"{processor} {instructions}"))


def keep(found: Results, folder: Path) -> Path:
    """Write what the report needs to the file of the machine, in the form that it was read from; its path."""
    rest = {
        "machine_info": {"fastnn": dict(found.machine)},
        "commit_info": {"id": found.revision.removesuffix("+"), "dirty": found.revision.endswith("+")},
        "datetime": found.measured,
        "fastnn": dict(found.own),
    }
    lines = ",\n".join(
        json.dumps(_benchmark(row, name, figure))
        for row in found.rows
        for name, figure in row.figures.items()
    )
    path = folder / f"{stem(found)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{json.dumps(rest)[:-1]},\n"benchmarks": [\n{lines}\n]}}\n', encoding="utf-8")
    return path


def _benchmark(row: Row, name: str, figure: Figure) -> dict[str, Any]:
    params = {"kernel": row.kernel, "workload": row.workload, "dtype": row.dtype}
    extra = {"suite": row.suite, "family": row.family, "flops": row.flops, "bytes": row.bytes}
    return {
        "params": {**params, "threads": row.threads, "backend_name": name},
        "extra_info": {**extra, "passes": figure.passes},
        "stats": {"median": figure.median, "q1": figure.q1, "q3": figure.q3},
    }


def latest(folder: Path) -> Path:
    """The file in `folder` that was measured last."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ResultsError(f"{folder} holds no results; measure with `python -m fastnn bench` first")
    return max(paths, key=lambda path: load(path).measured)


# ------------------------------------------------------------------------------------------------------------
# Markdown


def summary(found: Results) -> str:
    """What README says: the machine, the summary, a row for each workload of a family, and every loss."""
    return "\n\n".join([_machine(found), _totals(found), _by_workload(found), _losses(found)])


def full(found: Results) -> str:
    """The page with every row."""
    header = ["Kernel", "Workload", "dtype", "NumPy"]
    for backend in backends(found):
        header += [_title(backend), f"NumPy / {_title(backend)}"]
    parts = [
        "# Benchmarks",
        "Written by `benchmarks/report.py`; run `make bench` for another machine's.",
        _machine(found),
    ]
    parts += [_totals(found), _losses(found)]
    for family, rows in _grouped(found.rows, lambda row: row.family).items():
        body = []
        for row in rows:
            cells = [row.kernel, row.workload, row.dtype, _seconds(row, BASELINE)]
            for backend in backends(found):
                ratio = _ratios([row], backend)
                cells += [_seconds(row, backend), _ratio(ratio[0])] if ratio else ["-", "-"]
            body.append(cells)
        parts += [f"## {family.capitalize()}", _table(header, body)]
    return "\n\n".join(parts) + "\n"


def _machine(found: Results) -> str:
    machine = dict(found.machine)
    where = f"Measured on {found.measured[:10]}, {machine.pop('processor')}"
    return f"{where}: {', '.join(f'{name} {value}' for name, value in machine.items())}."


def _totals(found: Results) -> str:
    """All rows in a few figures; and those alone in which the work counts and not the call."""
    header = ["Ratio", "Of rows", "Number", "Median", "Geometric mean", "Lowest", "Highest", "Below 1.0"]
    working = [row for row in found.rows if row.figures[BASELINE].median >= WORK]
    body = []
    for baseline, backend in combinations([BASELINE, *backends(found)], 2):
        for which, rows in (("all", found.rows), (f"of {duration(WORK)} and more", working)):
            if ratios := _ratios(rows, backend, baseline):
                figures = (
                    statistics.median(ratios),
                    statistics.geometric_mean(ratios),
                    min(ratios),
                    max(ratios),
                )
                numbers = [str(len(ratios)), *map(_ratio, figures), str(sum(ratio < 1 for ratio in ratios))]
                body.append([f"{_title(baseline)} / {_title(backend)}", which, *numbers])
    return _table(header, body)


def _by_workload(found: Results) -> str:
    """One row for each workload of a family: geometric means over its kernels, and the range of ratios."""
    header = ["Family", "Workload", "dtype", "Kernels", "NumPy"]
    header += [f"NumPy / {_title(backend)}" for backend in backends(found)]
    body = []
    groups = _grouped(found.rows, lambda row: (row.family, row.workload, row.dtype))
    for (family, workload, dtype), rows in groups.items():
        time = duration(statistics.geometric_mean(row.figures[BASELINE].median for row in rows))
        ranges = [_range(_ratios(rows, backend)) for backend in backends(found)]
        body.append([family, workload, dtype, str(len(rows)), time, *ranges])
    return _table(header, body)


def _losses(found: Results) -> str:
    """Every row in which NumPy is faster, by name; a line for each kernel."""
    lines = []
    for backend in backends(found):
        lost = [row for row in found.rows if any(ratio < 1 for ratio in _ratios([row], backend))]
        for (_, kernel, dtype), rows in _grouped(
            lost, lambda row: (row.family, row.kernel, row.dtype)
        ).items():
            named = "; ".join(f"{row.workload}: {_ratio(*_ratios([row], backend))}" for row in rows)
            lines.append(_plain(f"- {_title(backend)}, {kernel}, {dtype}, {named}"))
    if not lines:
        return "NumPy is faster in no row."
    return "Below 1.0, where NumPy is faster:\n\n" + "\n".join(lines)


def _ratios(rows: Iterable[Row], backend: str, baseline: str = BASELINE) -> list[float]:
    """The ratios of those rows that both were measured in."""
    return [ratio.value for row in rows if (ratio := row.ratio(backend, baseline))]


def _seconds(row: Row, backend: str) -> str:
    return duration(row.figures[backend].median)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _table(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table; columns of figures are aligned right."""
    figures = [bool(body) and all(re.match(r"[-\d]", row[i]) for row in body) for i in range(len(header))]
    rule = ["--:" if figure else ":--" for figure in figures]
    return "\n".join("| " + " | ".join(map(_plain, cells)) + " |" for cells in [header, rule, *body])


def _plain(text: str) -> str:
    """`text` without a meaning in Markdown or HTML."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _title(backend: str) -> str:
    return TITLES.get(backend, backend)


def _ratio(ratio: float) -> str:
    """Cut, not rounded: what reads as 1.00 is no loss."""
    return (
        f"{math.floor(ratio * 100 + 1e-9) / 100:.2f}"
        if ratio < 10
        else f"{ratio:.1f}"
        if ratio < 100
        else f"{ratio:.0f}"
    )


def _range(ratios: list[float]) -> str:
    if not ratios:
        return "-"
    mean = _ratio(statistics.geometric_mean(ratios))
    return mean if len(ratios) == 1 else f"{mean} ({_ratio(min(ratios))} to {_ratio(max(ratios))})"


# ------------------------------------------------------------------------------------------------------------
# Pages


def with_block(page: str, block: str, path: Path) -> str:
    """`page` with `block` between the markers."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or page.count(START) != 1 or page.count(END) != 1:
        raise ResultsError(f"{path} needs one line {START} and after it one line {END}")
    return f"{before}{start}\n{block}\n{end}{after}"


def pages(found: Results, readme: Path, page: Path | None) -> dict[Path, str]:
    """What each page should say."""
    try:
        wanted = {readme: with_block(readme.read_text(encoding="utf-8"), summary(found), readme)}
    except OSError as error:
        raise ResultsError(f"{readme} cannot be read: {error.strerror}") from error
    return {**wanted, page: full(found)} if page else wanted


def out_of_step(wanted: Mapping[Path, str]) -> list[Path]:
    """The pages that say something else, or are not there."""
    return [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("measured", nargs="?", type=Path, help="JSON of a measurement, or kept results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder where results are kept")
    parser.add_argument(
        "--readme", type=Path, default=ROOT / "README.md", help="the page with the two markers"
    )
    parser.add_argument("--full", type=Path, help="the page for every row")
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--check", action="store_true", help="fail where a page is not in step; write nothing"
    )
    either.add_argument("--print", action="store_true", help="show the summary; write nothing")
    asked = parser.parse_args(arguments)
    try:
        path = asked.measured or latest(asked.results)
        found = load(path)
        if asked.print:
            sys.stdout.write(summary(found) + "\n")
            return 0
        stale = out_of_step(pages(found, asked.readme, asked.full))
        if asked.check:
            for page in stale:
                sys.stderr.write(f"{page} does not say what {path} says; run benchmarks/report.py\n")
            return 1 if stale else 0
        if asked.measured:
            if not found.own.get("complete", True):
                raise ResultsError(f"{path} is not a complete run; --print shows what it says")
            keep(found, asked.results)
        for page, text in pages(found, asked.readme, asked.full).items():
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
    except ResultsError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
