"""The benchmark report: what it says of a measurement, and that README says what the kept results say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fastnn.bench.worker import load_script

ROOT = Path(__file__).resolve().parent.parent
report = load_script("report")
PAGE = f"# Title\n\n{report.START}\nold\n{report.END}\n\nend\n"


def _benchmark(kernel: str, backend: str, seconds: float, **changes: Any) -> dict[str, Any]:
    """One benchmark as pytest-benchmark writes it, as far as the report reads it."""
    params = {"kernel": kernel, "workload": "n=64", "dtype": "float32", "threads": 1, "backend_name": backend}
    extra = {"suite": "kernels", "family": "activations"}
    own = {name: changes.pop(name) for name in ("workload", "dtype", "threads") if name in changes}
    return {
        "params": params | own,
        "extra_info": extra | changes,
        "stats": {"median": seconds, "q1": seconds / 2, "q3": seconds},
    }


def _document(*benchmarks: dict[str, Any]) -> dict[str, Any]:
    machine = {"processor": "Intel(R) Core(TM) i7 CPU @ 2.60GHz", "instruction set": "avx2", "threads": "1"}
    return {
        "machine_info": {"fastnn": machine},
        "commit_info": {"id": "0123456789abcdef", "dirty": True},
        "datetime": "2025-01-02T03:04:05",
        "benchmarks": list(benchmarks),
        "fastnn": {"schema": 1, "limits": {}},
    }


SMALL = _document(
    _benchmark("relu", "numpy", 3e-6),
    _benchmark("relu", "cython", 1e-6),
    _benchmark("relu", "numba", 5e-6),
    _benchmark("relu", "numpy", 9e-6, suite="rivals"),  # what other pages show
    _benchmark("relu", "numba", 1.0, suite="first calls"),
    _benchmark("relu", "cython", 5e-7, threads=2),
    _benchmark("tanh", "numpy", 2e-3),
    _benchmark("tanh", "cython", 2.001e-3),
    _benchmark("tanh", "numba", 1e-3),
    _benchmark("mse_loss", "numpy", 3e-8, family="losses", workload="n=1 | <b>"),
    _benchmark("mse_loss", "cython", 1e-8, family="losses", workload="n=1 | <b>"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with the small measurement and a page to write it on."""
    (tmp_path / "measured.json").write_text(json.dumps(SMALL), encoding="utf-8")
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def _run(folder: Path, *arguments: str) -> int:
    """The report's exit status, with all that it writes in `folder`."""
    own = ["--results", str(folder / "results"), "--readme", str(folder / "README.md")]
    return int(report.main([*arguments, *own]))


def _readme(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_medians_on_one_thread_give_the_ratio(folder: Path) -> None:
    found = report.load(folder / "measured.json")
    assert [row.kernel for row in found.rows] == ["relu", "tanh", "mse_loss"]
    relu = found.rows[0]
    medians = {name: figure.median for name, figure in relu.figures.items()}
    assert medians == {"numpy": 3e-6, "cython": 1e-6, "numba": 5e-6}
    assert relu.ratio("cython").value == pytest.approx(3)
    assert report.backends(found) == ["cython", "numba"]
    assert found.rows[2].ratio("numba") is None


def test_block_stands_between_the_markers(folder: Path) -> None:
    assert _run(folder, str(folder / "measured.json")) == 0
    text = _readme(folder)
    assert text.startswith(f"# Title\n\n{report.START}\n")
    assert text.endswith(f"\n{report.END}\n\nend\n")
    assert "\nold\n" not in text
    assert (
        "Measured on 2025-01-02, Intel(R) Core(TM) i7 CPU @ 2.60GHz: instruction set avx2, threads 1." in text
    )


def test_summary_counts_losses_and_names_them(folder: Path) -> None:
    _run(folder, str(folder / "measured.json"))
    lines = _readme(folder).splitlines()
    assert "| NumPy / Cython | all | 3 | 3.00 | 2.07 | 0.99 | 3.00 | 1 |" in lines
    assert "| NumPy / Cython | of 100 us and more | 1 | 0.99 | 0.99 | 0.99 | 0.99 | 1 |" in lines
    assert "| NumPy / Numba | all | 2 | 1.30 | 1.09 | 0.60 | 2.00 | 1 |" in lines
    assert "| Cython / Numba | all | 2 | 1.10 | 0.63 | 0.20 | 2.00 | 1 |" in lines
    assert (
        "| activations | n=64 | float32 | 2 | 77.5 us | 1.73 (0.99 to 3.00) | 1.09 (0.60 to 2.00) |" in lines
    )
    assert "- Cython, tanh, float32, n=64: 0.99" in lines
    assert "- Numba, relu, float32, n=64: 0.60" in lines


def test_names_have_no_meaning_in_markdown(folder: Path) -> None:
    _run(folder, str(folder / "measured.json"))
    assert r"| losses | n=1 \| &lt;b&gt; | float32 | 1 | 30 ns | 3.00 | - |" in _readme(folder).splitlines()


def test_without_losses_it_says_so(folder: Path) -> None:
    document = _document(_benchmark("relu", "numpy", 2e-6), _benchmark("relu", "cython", 1e-6))
    (folder / "measured.json").write_text(json.dumps(document), encoding="utf-8")
    _run(folder, str(folder / "measured.json"))
    assert "NumPy is faster in no row." in _readme(folder)


def test_full_page_has_every_row(folder: Path) -> None:
    page = folder / "docs" / "benchmarks.md"
    assert _run(folder, str(folder / "measured.json"), "--full", str(page)) == 0
    lines = page.read_text(encoding="utf-8").splitlines()
    assert "| relu | n=64 | float32 | 3 us | 1 us | 3.00 | 5 us | 0.60 |" in lines
    assert r"| mse_loss | n=1 \| &lt;b&gt; | float32 | 30 ns | 10 ns | 3.00 | - | - |" in lines
    assert {"## Activations", "## Losses"} <= set(lines)


def test_kept_results_say_the_same(folder: Path) -> None:
    _run(folder, str(folder / "measured.json"))
    kept = folder / "results" / "intel-core-i7-avx2.json"
    found, measured = report.load(kept), report.load(folder / "measured.json")
    assert [vars(row) for row in found.rows] == [vars(row) for row in measured.rows]
    assert dataclasses.replace(found, rows=()) == dataclasses.replace(measured, rows=())
    assert _run(folder, "--check") == 0
    assert _run(folder, str(kept), "--check") == 0


def test_check_fails_where_a_page_is_not_in_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(folder, str(folder / "measured.json"), "--check") == 1
    assert _readme(folder) == PAGE
    assert not (folder / "results").exists()
    assert "README.md does not say what" in capsys.readouterr().err
    _run(folder, str(folder / "measured.json"))
    page = folder / "README.md"
    page.write_text(_readme(folder).replace("| 3.00 |", "| 4.00 |"), encoding="utf-8")
    assert _run(folder, "--check") == 1
    assert _run(folder) == 0
    assert _run(folder, "--check") == 0
    assert _run(folder, "--check", "--full", str(folder / "missing.md")) == 1


def test_print_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(folder, str(folder / "measured.json"), "--print") == 0
    assert "| NumPy / Cython | all | 3 |" in capsys.readouterr().out
    assert _readme(folder) == PAGE
    assert not (folder / "results").exists()


def test_an_incomplete_run_is_not_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {**SMALL, "fastnn": {**SMALL["fastnn"], "complete": False}}
    (folder / "measured.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        _run(folder, str(folder / "measured.json"))
    assert "is not a complete run; --print shows what it says" in capsys.readouterr().err
    assert _readme(folder) == PAGE
    assert not (folder / "results").exists()
    assert _run(folder, str(folder / "measured.json"), "--print") == 0


WITHOUT_PROCESSOR = {**SMALL, "machine_info": {"fastnn": {"threads": "1"}}}
WITHOUT_NUMPY = _document(_benchmark("relu", "cython", 1e-6))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "is not JSON", id="not-json"),
        pytest.param('{"benchmarks": [{}]}', "was not written by", id="other-schema"),
        pytest.param(
            json.dumps(WITHOUT_PROCESSOR), "does not tell processor, instruction set", id="no-processor"
        ),
        pytest.param(json.dumps(WITHOUT_NUMPY), "has no row with NumPy's time", id="no-numpy"),
    ],
)
def test_bad_measurement_is_a_clear_error(
    folder: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "measured.json").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        _run(folder, str(folder / "measured.json"))
    message = capsys.readouterr().err
    assert problem in message
    assert "measured.json" in message
    assert _readme(folder) == PAGE


def test_missing_measurement_is_a_clear_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _run(folder, str(folder / "nowhere.json"))
    assert "nowhere.json cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        _run(folder)
    assert "holds no results; measure with" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["no markers", report.START, f"{report.END}\n{report.START}", PAGE + PAGE])
def test_page_without_markers_is_a_clear_error(
    folder: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "README.md").write_text(page, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        _run(folder, str(folder / "measured.json"))
    assert f"needs one line {report.START} and after it one line {report.END}" in capsys.readouterr().err
    assert _readme(folder) == page
    assert not (folder / "results").exists()


def test_missing_page_is_a_clear_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(SystemExit, match="2"):
        _run(folder, str(folder / "measured.json"))
    assert "README.md cannot be read" in capsys.readouterr().err


def test_unknown_option_lists_the_known_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _run(folder, "--nonsense")
    message = capsys.readouterr().err
    assert "--nonsense" in message
    assert "--full FULL" in message


def test_readme_says_what_the_kept_results_say() -> None:
    """This repository's own pages."""
    full = ROOT / "docs" / "benchmarks.md"
    assert report.main(["--check", "--full", str(full)]) == 0, "run benchmarks/report.py"


def test_kept_results_are_small() -> None:
    for path in report.RESULTS.glob("*.json"):
        assert path.stat().st_size < 500_000, f"{path} should hold no more than the report needs"
