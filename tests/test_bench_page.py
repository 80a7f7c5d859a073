"""The page of `python -m fastnn bench --html`: what it says, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess

import pytest

from fastnn.bench import command, compare, limits, results

page = pytest.importorskip("fastnn.bench.page")
for needed in page.NEEDED:
    pytest.importorskip(needed)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
HOSTILE = "\"><img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"


def benchmark(kernel, backend, seconds, **facts):
    """As `record` writes it."""
    facts = {
        "workload": "n=1e4",
        "suite": "kernels",
        "family": "activations",
        "flops": 0,
        "bytes": 8e4,
    } | facts
    extra = {name: facts[name] for name in ("suite", "family", "flops", "bytes")}
    return {
        "params": {
            "kernel": kernel,
            "workload": facts["workload"],
            "dtype": "float32",
            "backend_name": backend,
            "threads": 1,
        },
        "extra_info": {**extra, "passes": [seconds, seconds * 1.01]},
        "stats": {"median": seconds, "q1": seconds * 0.9, "q3": seconds * 1.1},
    }


LIMITS = limits.Limits(
    {"float32": 1e11}, (limits.Level("L1", 5e4, 1e11), limits.Level("memory", float("inf"), 1e10))
)


def document(*more, **own):
    """A run with a win, a loss, a rival, a product, a first call and a failure."""
    product = {"family": "linear", "workload": "32x784->128", "flops": 6.4e6, "bytes": 5e5}
    return {
        "machine_info": {"fastnn": {"processor": "A processor", "NumPy": "2.0"}},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "datetime": "2026-01-02T03:04:05",
        "benchmarks": [
            benchmark("relu", "numpy", 4e-6),
            benchmark("relu", "cython", 1e-6),
            benchmark("tanh", "numpy", 1e-5),
            benchmark("tanh", "cython", 2e-5),
            benchmark("linear", "numpy", 2e-4, **product),
            benchmark("linear", "cython", 1e-4, **product),
            benchmark("relu 1e4", "cython", 1e-6, suite="rivals", workload=""),
            benchmark("relu 1e4", "torch", 5e-6, suite="rivals", workload=""),
            benchmark("relu", "numba", 2.5, suite="first calls", workload="first call"),
            *more,
        ],
        "fastnn": {
            "schema": 1,
            "limits": {"1": LIMITS.as_json()},
            "unavailable": {"numba": "cannot be imported"},
            "failures": [{"row": "relu 1e4", "contender": "jax", "reason": "AssertionError: wrong"}],
            **own,
        },
    }


def body(text):
    """The page without styles and scripts."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.S)


@pytest.fixture(scope="module")
def rendered():
    return page.render(results.parse(document()))


def test_the_page_says_what_was_measured(rendered):
    text = body(rendered)
    for said in (
        "A processor",
        "revision 0123456789ab",
        "numba: cannot be imported",
        "jax failed at relu 1e4: AssertionError: wrong",
        "torch / cython",
        "numpy / cython",
        "2.5 s",
        "<td>activations</td><td>relu</td><td>numba</td>",
        '<td>numpy</td><td>cython</td><td class="row">activations: tanh n=1e4</td>',
    ):
        assert said in text
    assert re.search(r'numpy / cython</td><td class="number">3</td>', text)
    assert len(re.findall(r'id="chart\d', text)) == 4  # activations, linear, against rivals, roofline


def test_names_are_escaped_everywhere():
    hostile = [
        benchmark(HOSTILE, name, 1e-6, family=HOSTILE, workload=HOSTILE) for name in ("numpy", HOSTILE)
    ]
    given = document(*hostile, failures=[{"row": HOSTILE, "contender": HOSTILE, "reason": HOSTILE}])
    given["machine_info"]["fastnn"][HOSTILE] = HOSTILE
    text = page.render(results.parse(given))
    assert "<img" not in body(text)
    assert HOSTILE not in text
    assert text.count("<script") == page.render(results.parse(document())).count("<script")


def test_the_page_fetches_nothing(rendered):
    assert "default-src 'none'" in rendered
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", rendered)


def test_what_a_quick_run_leaves_out_is_told(rendered):
    given = results.parse(document(left_out=["networks: VGG"], plan={"quick": True}))
    assert "left out of a quick run: networks: VGG" in results.text(given)
    assert "Too long for a quick run: networks: VGG." in body(page.render(given))
    assert "left-out" not in rendered


def lines_of(chart):
    return {line["name"]: line for line in chart["data"] if "lines" in line["mode"]}


def test_rows_of_similar_size_without_a_workload_are_one_point_of_a_line():
    """Rows of rivals: a line from each to the next would go up and down between unlike ones."""
    sizes = {"relu 1e4": 8e4, "tanh 1e4": 9e4, "relu 1e6": 8e6}
    more = [
        benchmark(name, "jax", 1e-5, suite="rivals", workload="", bytes=size) for name, size in sizes.items()
    ]
    charts = dict(page._charts(results.parse(document(*more))))
    assert len(lines_of(charts["Activations, against rivals"])["jax"]["x"]) == 2


def test_contenders_have_colours_of_their_own_and_a_roof_is_named_where_it_is():
    rivals = "scipy", "scikit-learn", "torch", "torch channels last", "torch foreach", "jax", "onnxruntime"
    names = [*rivals, "cython", "numba", "numpy"]
    facts = {"suite": "rivals", "workload": "", "flops": 1e6}
    charts = dict(
        page._charts(results.parse(document(*(benchmark("a row", name, 1e-6, **facts) for name in names))))
    )
    lines = lines_of(charts["Activations, products, against rivals"])
    assert set(names) < lines.keys()
    assert len({line["line"]["color"] for line in lines.values()}) == len(lines)
    roofs = [one for one in charts["Roofline, threads 1"]["data"] if one["name"] == "limit"]
    assert [roof["text"][0] for roof in roofs] == ["L1", "memory"]
    assert [roof["showlegend"] for roof in roofs] == [False, True]


def test_a_row_is_compared_once_however_many_there_are(monkeypatch):
    names = [f"kernel{i}" for i in range(50)]
    more = [benchmark(name, by, 1e-6) for name in names for by in ("numpy", "cython", "torch")]
    given, calls, ratio = results.parse(document(*more)), [], results.Row.ratio
    monkeypatch.setattr(results.Row, "ratio", lambda *arguments: calls.append(1) or ratio(*arguments))
    page.render(given)
    assert len(calls) == len(given.timed) * len(given.compared)


def test_a_comparison_is_shown():
    old = document()
    for one in old["benchmarks"]:
        one["stats"]["median"] *= 0.5
        one["extra_info"]["passes"] = [0.5 * seconds for seconds in one["extra_info"]["passes"]]
    new = results.parse(document())
    text = body(page.render(new, compare.compare(results.parse(old), new), "old.json"))
    assert "Compared with old.json" in text
    assert '<td class="loss">slower</td><td>cython</td><td class="row">activations: relu n=1e4</td>' in text


def test_the_command_writes_it_from_an_earlier_run(tmp_path, capsys):
    measured, target = tmp_path / "measured.json", tmp_path / "pages" / "page.html"
    measured.write_text(json.dumps(document()), encoding="utf-8")
    assert command.main(["--show", str(measured), "--html", str(target)]) == 0
    assert "lost: activations: tanh n=1e4: 0.50" in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_without_the_libraries_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "NEEDED", ("no_such_library",))
    with pytest.raises(SystemExit, match="2"):
        command.main(["--html", str(tmp_path / "page.html")])
    assert (
        'no_such_library missing; install the extra: pip install "fastnn-kernels[report]"'
        in capsys.readouterr().err
    )


# ----------------------------------------------------------------------------------------------------
# In a browser

#: Sorts by the time of cython, then filters, and writes down what is then seen.
USE = """
<script type="module" nonce="{nonce}">
const cells = () => [...document.querySelectorAll("#table tbody tr")].map(row => row.cells[1].textContent);
const seen = {{}};
while (document.body.dataset.ready !== "yes") await new Promise(done => setTimeout(done, 50));
const order = document.querySelectorAll("#table thead .dtcc-button_order");
order[2].click();
await new Promise(done => setTimeout(done, 200));
seen.sorted = cells();
const search = document.querySelector(".dt-search input");
search.value = "tanh";
search.dispatchEvent(new Event("input", {{bubbles: true}}));
await new Promise(done => setTimeout(done, 600));
seen.filtered = cells();
seen.charts = document.querySelectorAll(".chart .main-svg").length;
seen.points = document.querySelectorAll(".chart .point").length;
seen.wide = document.documentElement.scrollWidth - innerWidth;
seen.title = document.title;
dispatchEvent(new Event("beforeprint"));
await new Promise(done => setTimeout(done, 300));
seen.printed = document.querySelector(".chart .main-svg").clientWidth;
dispatchEvent(new Event("afterprint"));
const told = document.createElement("pre");
told.id = "seen";
told.textContent = JSON.stringify(seen);
document.body.append(told);
</script>
"""


def opened(tmp_path, text):
    """What a browser has seen, used the page, and said on its console."""
    (nonce,) = set(re.findall(r'<script nonce="([^"]+)"', text))
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", USE.format(nonce=nonce) + "</body>"), encoding="utf-8")
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    line += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    finished = subprocess.run([*line, path.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', finished.stdout, re.S)
    assert found, finished.stderr
    return json.loads(html.unescape(found[1])), [
        line for line in finished.stderr.splitlines() if "CONSOLE" in line
    ]


@in_browser
def test_the_page_opens_sorts_filters_and_has_charts(rendered, tmp_path):
    seen, console = opened(tmp_path, rendered)
    assert console == []
    assert seen["sorted"] == ["relu n=1e4", "relu 1e4", "tanh n=1e4", "linear 32x784->128"]
    assert seen["filtered"] == ["tanh n=1e4"]
    assert seen["charts"] >= 4
    assert seen["points"] >= 8
    assert seen["wide"] <= 0
    assert seen["printed"] == 680  # as wide as paper


@in_browser
def test_a_hostile_name_does_not_run(tmp_path):
    hostile = [
        benchmark(HOSTILE, name, 1e-3, family=HOSTILE, workload=HOSTILE) for name in ("numpy", HOSTILE)
    ]
    seen, console = opened(tmp_path, page.render(results.parse(document(*hostile))))
    assert console == []
    assert seen["title"] == "fastnn: benchmarks of 2026-01-02"
    assert any("<img" in name for name in seen["sorted"])
