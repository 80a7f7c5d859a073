"""The page for readers: one HTML file with everything in it, which fetches nothing and runs nothing but its own.

Tables are written by Jinja, which escapes what it is given, and sorted and filtered by DataTables (from itables);
charts are Plotly's. A policy in the page forbids scripts without its nonce, and the network.
"""

from __future__ import annotations

import html
import json
import math
import secrets
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastnn.bench.compare import Comparison
from fastnn.bench.limits import MEMORY
from fastnn.bench.results import OWN, Ratio, Results, Row, duration, geometric_mean

NEEDED = ("jinja2", "plotly", "itables")
TEMPLATE = Path(__file__).with_name("page.html")
#: Colours that most people can tell from each other (Okabe and Ito's, and more), the first for our own.
COLOURS = (
    *("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C00"),
    *("#7B3FA0", "#7A5230", "#9AA0A6", "#4DD0A0"),
)
LIMIT_COLOUR = "#B00020"
FIRST_CALLS = "first calls"


@dataclass(frozen=True)
class Cell:
    """What is shown, what it is sorted by, and what a pointer over it tells."""

    text: str = "-"
    order: float = -1.0
    title: str = ""
    kind: str = ""


def render(results: Results, comparison: Comparison | None = None, compared_with: str = "") -> str:
    """The page."""
    import itables
    import jinja2
    import plotly.offline
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    charts = _charts(results)
    bundle = Path(itables.options.dt_bundle)
    changes = comparison.of("slower") + comparison.of("faster") if comparison else []
    text: str = template.render(
        results=results,
        nonce=secrets.token_urlsafe(12),
        quick=results.own["plan"].get("quick"),
        summary=_summary(results),
        problems=_problems(results),
        comparison=comparison,
        compared_with=compared_with,
        changes=changes,
        losses=_losses(results),
        charts=[{"title": title} for title, _ in charts],
        rows=[_cells(results, row) for row in results.timed],
        left_out=results.own["left_out"],
        first_calls=_first_calls(results),
        duration=duration,
        plotly=Markup(plotly.offline.get_plotlyjs().replace("</script", "<\\/script")),
        figures=_for_script([figure for _, figure in charts]),
        table_library=_for_script(bundle.read_text(encoding="utf-8")),
        table_style=Markup(bundle.with_suffix(".css").read_text(encoding="utf-8")),
    )
    return text


def _for_script(value: Any) -> Any:
    """JSON in which nothing ends a script or begins a comment."""
    from markupsafe import Markup

    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


# ----------------------------------------------------------------------------------------------------
# Tables


def _summary(results: Results) -> list[dict[str, Any]]:
    lines = []
    for name, baseline, ratios in results.compared:
        values = [ratio.value for ratio in ratios.values()]
        verdicts = [ratio.verdict for ratio in ratios.values()]
        lines.append(
            {
                "name": name,
                "baseline": baseline,
                "rows": len(values),
                "mean": f"{geometric_mean(ratios.values()):.2f}",
                "median": f"{statistics.median(values):.2f}",
                "lowest": f"{min(values):.2f}",
                "highest": f"{max(values):.2f}",
                **{verdict: verdicts.count(verdict) for verdict in ("win", "even", "loss")},
            }
        )
    return lines


def _problems(results: Results) -> list[str]:
    missing = [f"{name}: {reason}" for name, reason in results.own["unavailable"].items()]
    failed = [
        f"{one['contender']} failed at {one['row']}: {one['reason']}" for one in results.own["failures"]
    ]
    return missing + failed


def _losses(results: Results) -> list[dict[str, Any]]:
    return [
        {"name": name, "baseline": baseline, "row": row, "ratio": ratio}
        for name, baseline, ratios in results.compared
        for row, ratio in ratios.items()
        if ratio.verdict == "loss"
    ]


def _cells(results: Results, row: Row) -> dict[str, Any]:
    times = [_time(row, name) for name in results.contenders]
    ratios = [_ratio(table.get(row)) for _, _, table in results.compared]
    shares = [share for name in OWN if (share := results.share(row, name)) is not None]
    best = Cell(f"{max(shares):.0%}", max(shares)) if shares else Cell()
    return {"family": row.family, "name": row.name, "times": times, "ratios": ratios, "share": best}


def _time(row: Row, contender: str) -> Cell:
    figure = row.figures.get(contender)
    if figure is None:
        return Cell()
    quartiles = f"{duration(figure.q1)} to {duration(figure.q3)}, noise {figure.noise:.1%}"
    return Cell(duration(figure.median), figure.median, quartiles)


def _ratio(ratio: Ratio | None) -> Cell:
    if ratio is None:
        return Cell()
    return Cell(f"{ratio.value:.2f}", ratio.value, f"{ratio.verdict}, noise {ratio.noise:.1%}", ratio.verdict)


def _first_calls(results: Results) -> list[dict[str, str]]:
    return [
        {
            "family": row.family,
            "name": replace(row, workload="").name,
            "contender": name,
            "time": duration(figure.median),
        }
        for row in results.rows
        if row.suite == FIRST_CALLS
        for name, figure in row.figures.items()
    ]


# ----------------------------------------------------------------------------------------------------
# Charts


def _charts(results: Results) -> list[tuple[str, Any]]:
    """Title and figure: one for each family, and the rooflines."""
    families: dict[tuple[str, str, bool], list[Row]] = {}
    for row in results.timed:
        families.setdefault((row.suite, row.family, row.flops > 0), []).append(row)
    charts = []
    for (suite, family, has_products), rows in families.items():
        both = (suite, family, not has_products) in families
        title = f"{family}{', products' if both and has_products else ''}"
        title += ", against rivals" if suite == "rivals" else ""
        charts.append((title[:1].upper() + title[1:], _over_sizes(results, rows)))
    charts += [
        (f"Roofline, threads {threads}", _roofline(results, threads)) for threads in _rooflines(results)
    ]
    return charts


def _figure(x: tuple[str, str], y: tuple[str, str]) -> Any:
    """An empty chart; each axis has a title and a unit."""
    import plotly.graph_objects as go

    figure = go.Figure()
    axis = {
        "type": "log",
        "gridcolor": "#e6e9ed",
        "linecolor": "#57606a",
        "exponentformat": "SI",
        "minexponent": 1,
    }
    figure.update_layout(
        xaxis={**axis, "title": {"text": x[0]}, "ticksuffix": x[1]},
        yaxis={**axis, "title": {"text": y[0]}, "ticksuffix": y[1]},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        margin={"l": 60, "r": 34, "t": 10, "b": 50},
        modebar={"orientation": "v"},
        plot_bgcolor="white",
        paper_bgcolor="white",
        template="none",
        autosize=True,
    )
    return figure


def _over_sizes(results: Results, rows: list[Row]) -> Any:
    """Seconds over size for each contender, and the limit."""
    counted = rows[0].flops > 0

    def size(row: Row) -> float:
        return row.flops if counted else row.bytes

    figure = _figure(
        ("operations (multiply-add = 2)", "") if counted else ("bytes read and written", "B"),
        ("seconds of a call", "s"),
    )
    for number, name in enumerate(results.contenders):
        for threads in sorted({row.threads for row in rows}):
            mine = [row for row in rows if row.threads == threads and name in row.figures]
            if mine:
                _add_contender(figure, name, threads, mine, size, COLOURS[number % len(COLOURS)])
    for threads in sorted({row.threads for row in rows} & results.limits.keys()):
        mine = [row for row in rows if row.threads == threads]
        x, y = _means(mine, size, lambda row: results.limit(row) or 1.0)
        line = {"color": LIMIT_COLOUR, "dash": "dot" if threads == 1 else "dashdot"}
        figure.add_scatter(x=x, y=y, mode="lines", name=_of_threads("limit", threads), line=line)
    return figure.to_plotly_json()


def _add_contender(
    figure: Any, name: str, threads: int, rows: list[Row], size: Callable[[Row], float], colour: str
) -> None:
    label = html.escape(_of_threads(name, threads))

    def seconds(row: Row) -> float:
        return row.figures[name].median

    x, y = _means(rows, size, seconds)
    dash = "solid" if threads == 1 else "dash"
    figure.add_scatter(
        x=x, y=y, mode="lines", name=label, legendgroup=label, line={"color": colour, "dash": dash}
    )
    figure.add_scatter(
        x=list(map(size, rows)),
        y=list(map(seconds, rows)),
        mode="markers",
        marker={"color": colour, "size": 5, "opacity": 0.5},
        legendgroup=label,
        showlegend=False,
        name=label,
        text=[html.escape(row.name) for row in rows],
        hovertemplate="%{text}: %{y:.3s}s<extra></extra>",
    )


def _of_threads(name: str, threads: int) -> str:
    return name if threads == 1 else f"{name}, {threads} threads"


def _means(
    rows: Iterable[Row], size: Callable[[Row], float], value: Callable[[Row], float]
) -> tuple[list[float], list[float]]:
    """Geometric means over the rows of each workload, or of a similar size where rows have none, by size."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if size(row) > 0:
            similar = f"{math.log10(size(row)):.0f}"
            groups.setdefault(row.workload.partition(",")[0] or similar, []).append(row)
    points = sorted(
        (statistics.geometric_mean(map(size, group)), statistics.geometric_mean(map(value, group)))
        for group in groups.values()
    )
    return [x for x, _ in points], [y for _, y in points]


def _rooflines(results: Results) -> list[int]:
    """The numbers of threads with rows that have multiply-adds."""
    return sorted({row.threads for row in results.timed if row.flops} & results.limits.keys())


def _roofline(results: Results, threads: int) -> Any:
    """Operations a second over operations for each byte, under what the machine can do."""
    limits = results.limits[threads]
    rows = [row for row in results.timed if row.flops and row.bytes and row.threads == threads]
    intensities = [row.flops / row.bytes for row in rows]
    figure = _figure(("operations for each byte", ""), ("operations a second", ""))
    ends = min(intensities) / 2, max(intensities) * 2
    dtypes = sorted({row.dtype for row in rows} & limits.flops.keys())
    for dtype in dtypes:
        peak = limits.flops[dtype]
        for level in limits.levels:
            ridge = min(max(peak / level.bandwidth, ends[0]), ends[1])
            x = [ends[0], ridge, ends[1]]
            y = [min(peak, level.bandwidth * one) for one in x]
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines+text",
                text=[level.name, "", dtype if level is limits.levels[-1] else ""],
                textposition=[
                    f"{'bottom' if level.name == MEMORY else 'top'} right",
                    "top center",
                    "top left",
                ],
                textfont={"color": LIMIT_COLOUR},
                name="limit",
                legendgroup="limit",
                showlegend=dtype == dtypes[0] and level is limits.levels[-1],
                line={
                    "color": LIMIT_COLOUR,
                    "width": 1,
                    "dash": "solid" if level is limits.levels[-1] else "dot",
                },
                hoverinfo="skip",
            )
    for number, name in enumerate(results.contenders):
        mine = [row for row in rows if name in row.figures]
        figure.add_scatter(
            x=[row.flops / row.bytes for row in mine],
            y=[row.flops / row.figures[name].median for row in mine],
            mode="markers",
            name=html.escape(name),
            marker={"color": COLOURS[number % len(COLOURS)], "size": 6, "opacity": 0.7},
            text=[html.escape(row.title) for row in mine],
            hovertemplate="%{text}: %{y:.3s}FLOP/s<extra></extra>",
        )
    return figure.to_plotly_json()
