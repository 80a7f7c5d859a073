"""From the measurements to the tables that people read.

    python benchmarks/report.py [MEASURED.json] [--full docs/benchmarks.md] [--check | --print]

MEASURED.json is what `python -m fastnn bench` wrote or what an earlier report kept; left out, it is the latest of
those kept. A new measurement is cut down to what the report needs and kept in `benchmarks/results/`. The
summary goes between two markers in README, `--full` writes every row to a page of its own. `--check` writes
nothing and fails where the pages do not say what the measurement says; `--print` shows the summary and leaves
all files alone.

A ratio is NumPy's time divided by the backend's, each the median of all rounds.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
BASELINE = "numpy"
#: Where NumPy takes this many seconds, it is the work that is measured and not the call.
WORK = 1e-4
#: How a backend is written in the tables; one that is not named here is shown as it is.
TITLES = {"numpy": "NumPy", "cython": "Cython", "numba": "Numba"}


class ReportError(Exception):
    """What is wrong with a file that was given, in a sentence for whoever gave it."""


@dataclass(frozen=True)
class Row:
    """One workload of one kernel in one dtype: the seconds of a call, by backend."""

    family: str
    kernel: str
    workload: str
    dtype: str
    seconds: Mapping[str, float]

    @property
    def id(self) -> list[str]:
        """What tells this row from the others."""
        return [self.family, self.kernel, self.workload, self.dtype]

    def ratio(self, backend: str) -> float | None:
        """How many times as fast as NumPy `backend` is; None where it was not measured."""
        return self.seconds[BASELINE] / self.seconds[backend] if backend in self.seconds else None


@dataclass(frozen=True)
class Results:
    """All rows of one run, and the machine that they were measured on."""

    machine: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def backends(self) -> list[str]:
        """The backends that are compared with NumPy, those with a title first."""
        found = {backend for row in self.rows for backend in row.seconds} - {BASELINE}
        return sorted(
            found, key=lambda name: (list(TITLES).index(name) if name in TITLES else len(TITLES), name)
        )

    @property
    def stem(self) -> str:
        """The name of the file that keeps these results: the processor and its instruction set."""
        processor = re.sub(r"\((r|tm)\)|\bcpu\b|@.*", "", self.machine["processor"].lower())
        words = re.findall(r"[a-z0-9]+", f"{processor} {self.machine['instruction set']}")
        return "-".join(words)


def load(path: Path) -> Results:
    """The results in `path`, as pytest-benchmark wrote them or as `keep` did."""
    document = _read_json(path)
    try:
        results = _measured(document) if "benchmarks" in document else _kept(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(
            f"{path} was not written by these benchmarks: {type(error).__name__}: {error}"
        ) from error
    if not results.rows:
        raise ReportError(f"{path} has no row with NumPy's time; measure with the numpy backend too")
    return results


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from error


def _measured(document: Mapping[str, Any]) -> Results:
    """From the JSON of a measurement: the backends on one thread. Rivals and first calls are on other pages."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for benchmark in document["benchmarks"]:
        params, extra = benchmark["params"], benchmark["extra_info"]
        if extra["suite"] in ("kernels", "calls") and extra["threads"] == 1:
            key = extra["family"], params["kernel"], params["workload"], params["dtype"]
            found.setdefault(key, {})[params["backend_name"]] = _time(benchmark["stats"]["median"])
    rows = tuple(Row(*key, seconds) for key, seconds in found.items() if BASELINE in seconds)
    machine = {**document["machine_info"]["fastnn"], "measured": document["datetime"][:10]}
    return Results(_named(machine), rows)


def _kept(document: Mapping[str, Any]) -> Results:
    """From the file that `keep` wrote."""
    rows = []
    for row in document["rows"]:
        family, kernel, workload, dtype = map(str, row["id"])
        seconds = {backend: _time(seconds) for backend, seconds in row["seconds"].items()}
        rows.append(Row(family, kernel, workload, dtype, seconds))
    return Results(_named(document["machine"]), tuple(row for row in rows if BASELINE in row.seconds))


def _named(machine: Mapping[str, Any]) -> dict[str, str]:
    """The description of a machine, which must say when, on what and with which instructions."""
    missing = [name for name in ("measured", "processor", "instruction set") if name not in machine]
    if missing:
        raise ValueError(f"the machine has no {', '.join(missing)}")
    return {str(name): str(value) for name, value in machine.items()}


def _time(seconds: Any) -> float:
    """To four digits, which is more than a clock under a noisy machine is good for."""
    if not seconds > 0:
        raise ValueError(f"a time of {seconds!r} seconds")
    return float(f"{seconds:.4g}")


def refuse_incomplete(path: Path) -> None:
    """A quick, partial or interrupted run is for its terminal, not for pages."""
    if not _read_json(path).get("fastnn", {}).get("complete", True):
        raise ReportError(f"{path} is not a complete run; --print shows what it says")


def keep(results: Results, folder: Path) -> Path:
    """Write what the report needs of `results` to the file of their machine; its path."""
    rows = ",\n".join(json.dumps({"id": row.id, "seconds": row.seconds}) for row in results.rows)
    path = folder / f"{results.stem}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'{{"machine": {json.dumps(results.machine)},\n"rows": [\n{rows}\n]}}\n', encoding="utf-8"
    )
    return path


def latest(folder: Path) -> Path:
    """The file in `folder` that was measured last."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ReportError(f"{folder} holds no results; measure with `python -m fastnn bench` first")
    return max(paths, key=lambda path: load(path).machine["measured"])


# ------------------------------------------------------------------------------------------------------------
# Markdown


def summary(results: Results) -> str:
    """What README says: the machine, the summary, a row for each workload of a family, and every loss."""
    return "\n\n".join([_machine(results), _totals(results), _by_workload(results), _losses(results)])


def full(results: Results) -> str:
    """The page with every row."""
    header = ["Kernel", "Workload", "dtype", "NumPy"]
    for backend in results.backends:
        header += [_title(backend), f"NumPy / {_title(backend)}"]
    parts = [
        "# Benchmarks",
        "Written by `benchmarks/report.py`; run `make bench` for another machine's.",
        _machine(results),
    ]
    parts += [_totals(results), _losses(results)]
    for family, rows in _grouped(results.rows, lambda row: row.family).items():
        body = []
        for row in rows:
            cells = [row.kernel, row.workload, row.dtype, _duration(row.seconds[BASELINE])]
            for backend in results.backends:
                known = backend in row.seconds
                cells += [_duration(row.seconds[backend]) if known else "-", _ratio(row.ratio(backend))]
            body.append(cells)
        parts += [f"## {family.capitalize()}", _table(header, body)]
    return "\n\n".join(parts) + "\n"


def _machine(results: Results) -> str:
    machine = dict(results.machine)
    where = f"Measured on {machine.pop('measured')}, {machine.pop('processor')}"
    return f"{where}: {', '.join(f'{name} {value}' for name, value in machine.items())}."


def _totals(results: Results) -> str:
    """All rows in a few figures; and those alone in which the work counts and not the call."""
    header = ["Ratio", "Of rows", "Number", "Median", "Geometric mean", "Lowest", "Highest", "Below 1.0"]
    working = [row for row in results.rows if row.seconds[BASELINE] >= WORK]
    body = []
    for backend in results.backends:
        for which, rows in (("all", results.rows), (f"of {_duration(WORK)} and more", working)):
            if ratios := _ratios(rows, backend):
                figures = (
                    statistics.median(ratios),
                    statistics.geometric_mean(ratios),
                    min(ratios),
                    max(ratios),
                )
                numbers = [str(len(ratios)), *map(_ratio, figures), str(sum(ratio < 1 for ratio in ratios))]
                body.append([f"NumPy / {_title(backend)}", which, *numbers])
    return _table(header, body)


def _by_workload(results: Results) -> str:
    """One row for each workload of a family: geometric means over its kernels, and the range of ratios."""
    header = ["Family", "Workload", "dtype", "Kernels", "NumPy"]
    header += [f"NumPy / {_title(backend)}" for backend in results.backends]
    body = []
    groups = _grouped(results.rows, lambda row: (row.family, row.workload, row.dtype))
    for (family, workload, dtype), rows in groups.items():
        time = _duration(statistics.geometric_mean(row.seconds[BASELINE] for row in rows))
        ranges = [_range(_ratios(rows, backend)) for backend in results.backends]
        body.append([family, workload, dtype, str(len(rows)), time, *ranges])
    return _table(header, body)


def _losses(results: Results) -> str:
    """Every row in which NumPy is faster, by name; a line for each kernel."""
    lines = []
    for backend in results.backends:
        lost = [row for row in results.rows if (ratio := row.ratio(backend)) is not None and ratio < 1]
        for (_, kernel, dtype), rows in _grouped(
            lost, lambda row: (row.family, row.kernel, row.dtype)
        ).items():
            named = "; ".join(f"{row.workload}: {_ratio(row.ratio(backend))}" for row in rows)
            lines.append(_plain(f"- {_title(backend)}, {kernel}, {dtype}, {named}"))
    if not lines:
        return "No row is below 1.0."
    return "Below 1.0, where NumPy is faster:\n\n" + "\n".join(lines)


def _ratios(rows: Iterable[Row], backend: str) -> list[float]:
    """The ratios of those rows that `backend` was measured in."""
    return [ratio for row in rows if (ratio := row.ratio(backend)) is not None]


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


def _ratio(ratio: float | None) -> str:
    """Cut, not rounded: what reads as 1.00 is no loss."""
    if ratio is None:
        return "-"
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


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


# ------------------------------------------------------------------------------------------------------------
# Pages


def with_block(page: str, block: str, path: Path) -> str:
    """`page` with `block` between the markers."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or page.count(START) != 1 or page.count(END) != 1:
        raise ReportError(f"{path} needs one line {START} and after it one line {END}")
    return f"{before}{start}\n{block}\n{end}{after}"


def pages(results: Results, readme: Path, page: Path | None) -> dict[Path, str]:
    """What each page should say."""
    try:
        wanted = {readme: with_block(readme.read_text(encoding="utf-8"), summary(results), readme)}
    except OSError as error:
        raise ReportError(f"{readme} cannot be read: {error.strerror}") from error
    return {**wanted, page: full(results)} if page else wanted


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
        results = load(path)
        if asked.print:
            sys.stdout.write(summary(results) + "\n")
            return 0
        stale = out_of_step(pages(results, asked.readme, asked.full))
        if asked.check:
            for page in stale:
                sys.stderr.write(f"{page} does not say what {path} says; run benchmarks/report.py\n")
            return 1 if stale else 0
        if asked.measured:
            refuse_incomplete(asked.measured)
            keep(results, asked.results)
        for page, text in pages(results, asked.readme, asked.full).items():
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
    except ReportError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
