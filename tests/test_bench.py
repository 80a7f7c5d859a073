"""`python -m fastnn bench`: what is measured, what is written, and what becomes of those who fail."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

import fastnn
from fastnn import _select
from fastnn.bench import command, compare, limits, results, rows, timing, worker

pytest.importorskip("threadpoolctl")
of_posix = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
COMPARE = [sys.executable, "-m", "pytest_benchmark", "compare"]
TINY = timing.Patience(turn=1e-5, seconds=1e-4, least=2, most=3)


def bench(*arguments):
    """The command in a process of its own."""
    line = [sys.executable, "-W", "error", "-m", "fastnn", "bench", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A short run: what it says, and the file that it wrote."""
    if reason := _select.why_unavailable("cython"):
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("bench") / "measured.json"
    finished = bench("--quick", "--only", "softsign", "--backends", "numpy,cython", "--json", path)
    assert finished.returncode == 0, finished.stderr
    return finished, path


def test_every_backend_is_measured_and_compared(measured):
    finished, path = measured
    found = results.load(path)
    assert {row.workload for row in found.timed} == {"n=1e0", "n=1e2", "n=1e4", "n=1e6"}
    assert all(set(row.figures) == {"numpy", "cython"} for row in found.timed)
    assert all(len(figure.passes) == 2 for row in found.timed for figure in row.figures.values())
    assert "numpy / cython: 4 rows, geometric mean" in finished.stdout
    assert "noise of a time" in finished.stdout
    assert {1, limits.all_threads()} == found.limits.keys()
    assert all(found.share(row, "cython") > 0 for row in found.timed)
    assert "8/8" in finished.stderr
    assert "left out" not in finished.stdout


def test_the_file_says_what_the_figures_depend_on(measured):
    document = json.loads(measured[1].read_text(encoding="utf-8"))
    machine = document["machine_info"]["fastnn"]
    for what in ("processor", "instruction set", "governor", "threads", "clock", "Python", "NumPy", "BLAS"):
        assert machine[what]
    assert document["commit_info"]["id"]
    assert not document["fastnn"]["complete"]
    for row in document["benchmarks"]:
        stats = row["stats"]
        assert 0 < stats["min"] <= stats["q1"] <= stats["median"] <= stats["q3"] <= stats["max"]
        assert stats["iterations"] == row["extra_info"]["calls"] >= 1
        assert row["params"]["threads"] == 1


def test_pytest_benchmark_compares_the_file(measured):
    finished = subprocess.run([*COMPARE, measured[1]], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "test_row[softsign-n=1e4-float32-cython-threads1]" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["--only", "rellu"], "relu"),
        (["--only", "networks"], "--rivals"),
        (["--backends", "fortran"], "cython, numba, numpy"),
        (["--dtypes", "float8"], "float32, float64"),
        (["--threads", "none"], "--threads"),
        (["--threads", "0"], "--threads"),
        (["--margin", "-5"], "--margin"),
    ],
)
def test_unknown_names_list_the_known(arguments, known, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    message = capsys.readouterr().err
    assert arguments[1] in message
    assert known in message


def test_without_a_checkout_the_rivals_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "SCRIPTS", tmp_path / "benchmarks")
    with pytest.raises(SystemExit, match="2"):
        command.main(["--rivals"])
    assert "needs a checkout of fastnn's sources" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------
# Those who fail


def work(**contenders):
    """A row of relu, whose answer is known."""
    x = np.linspace(-1, 1, 8)
    return rows.Work(
        "relu 8", 0, 2 * x.nbytes, partial(np.maximum, x, 0), {"numpy": lambda: x * (x > 0)} | contenders
    )


def fail_later(calls=2):
    """A contender that is right first and raises an error later."""
    x, left = np.linspace(-1, 1, 8), iter(range(calls))

    def call():
        next(left)
        return np.maximum(x, 0)

    return call


def raising():
    raise RuntimeError("out of order")


class Rivals(worker.Plan):
    """A plan of one row that is given, and of no kernels."""

    patience = TINY

    def rows(self):
        return iter(())

    def rival_works(self):
        yield "activations", iter([type(self).work])


def journal_of(tmp_path, given):
    plan = type("Given", (Rivals,), {"work": given})(passes=2)
    journal = worker.Journal(tmp_path / "journal")
    worker.Bench(plan, journal).run()
    return worker.read_journal(journal.path)


def test_who_fails_is_named_and_the_rest_goes_on(tmp_path):
    x = np.linspace(-1, 1, 8)
    given = work(wrong=lambda: np.ones(8), raising=raising, late=fail_later(), right=lambda: np.maximum(x, 0))
    entries = journal_of(tmp_path, given)
    failed = {entry["contender"]: entry["reason"] for entry in entries if entry["event"] == "failed"}
    assert failed.keys() == {"wrong", "raising", "late"}
    assert failed["raising"] == "RuntimeError: out of order"
    assert failed["wrong"].startswith("wrong answer: Not equal to tolerance")
    assert "; Mismatched elements: 7 / 8 (87.5%); Max absolute difference" in failed["wrong"]
    assert failed["late"].startswith("StopIteration")
    passes = [entry for entry in entries if entry["event"] == "measured"]
    assert [entry["pass"] for entry in passes] == [0, 1]
    assert all(entry["seconds"].keys() == {"numpy", "right"} for entry in passes)


def test_a_rival_that_cannot_be_made_fails_when_it_is_called(tmp_path):
    """A row of others would go with it else, and all that follow."""
    made = worker.load_script("rivals").fails_when_called(raising)()
    (failed, *measured) = (
        entry for entry in journal_of(tmp_path, work(bad=made)) if entry["event"] in ("failed", "measured")
    )
    assert (failed["contender"], failed["reason"]) == ("bad", "RuntimeError: out of order")
    assert [entry["seconds"].keys() for entry in measured] == [{"numpy"}] * 2


def test_who_fails_is_told_where_nothing_was_measured(monkeypatch, capsys):
    failed = {"event": "failed", "contender": "numpy", "row": "relu", "reason": "wrong answer"}
    monkeypatch.setattr(command, "measure_limits", lambda threads: LIMITS)
    monkeypatch.setattr(command, "_journals", lambda plan, threads: (0, {1: [failed]}))
    assert command.main([]) == 1
    assert capsys.readouterr().err.endswith("numpy failed at relu: wrong answer\nnothing was measured\n")


def test_more_threads_than_processors_are_told(monkeypatch, capsys):
    monkeypatch.setattr(command, "measure_limits", lambda threads: LIMITS)
    monkeypatch.setattr(command, "_journals", lambda plan, threads: (0, {}))
    monkeypatch.setattr(command, "all_threads", lambda: 2)
    command.main(["--threads", "2"])
    assert "more threads" not in capsys.readouterr().err
    command.main(["--threads", "1,3"])
    assert "more threads than processors: 3 on 2" in capsys.readouterr().err


def test_a_first_call_is_one_row_however_often_the_process_is_started_again(tmp_path):
    given = type("Given", (Rivals,), {"work": work(jax=lambda: np.maximum(np.linspace(-1, 1, 8), 0))})
    journal = worker.Journal(tmp_path / "journal")
    for _ in range(2):
        worker.Bench(given(passes=1), journal).run()
        journal.entries = [entry for entry in journal.entries if entry["event"] != "measured"]
    assert [entry["event"] for entry in journal.entries].count("first call") == 1


def test_rows_that_cannot_be_made_are_named(tmp_path):
    class Plan(Rivals):
        def rival_works(self):
            yield "activations", (one for one in [work(), None] if one or raising())
            yield "losses", iter([work()])

    journal = worker.Journal(tmp_path / "journal")
    worker.Bench(Plan(passes=1), journal).run()
    failed = [entry for entry in journal.entries if entry["event"] == "failed"]
    assert [(entry["row"], entry["contender"]) for entry in failed] == [("activations", "rivals")]
    assert "out of order" in failed[0]["reason"]
    measured = [entry["facts"]["family"] for entry in journal.entries if entry["event"] == "measured"]
    assert measured == ["activations", "losses"]


def test_the_first_answer_of_a_contender_that_trains_is_compared(tmp_path):
    weights = {name: np.zeros(3) for name in ("numpy", "fastnn", "wrong")}

    def train(name, step):
        weights[name] += step
        return weights[name]

    calls = {name: partial(train, name, 2 if name == "wrong" else 1) for name in weights}
    answers = {name: lambda call=call: call() / 1 for name, call in calls.items()}
    given = rows.Work("train", 1, 0, lambda: np.ones(3), calls, answers)
    entries = journal_of(tmp_path, worker._by_backend(given))
    assert [one["contender"] for one in entries if one["event"] == "failed"] == ["wrong"]
    own = fastnn.report()[0].backend
    assert all(one["seconds"].keys() == {"numpy", own} for one in entries if one["event"] == "measured")


def test_whole_networks_are_rows_of_the_rivals(tmp_path):
    plan = type("Networks", (worker.Plan,), {"patience": TINY})
    journal = worker.Journal(tmp_path / "journal")
    worker.Bench(plan(passes=1, rivals=True, only=("networks",), largest=1e7), journal).run()
    measured = {entry["row"]: entry for entry in journal.entries if entry["event"] == "measured"}
    dense = measured["networks: MLP 784-512-256-10, SGD step of 64"]
    assert {"numpy", fastnn.report()[0].backend} <= dense["seconds"].keys()
    assert "networks: LeNet-5 1x28x28, Adam step of 64" in measured
    (left_out,) = (entry["rows"] for entry in journal.entries if entry["event"] == "left out")
    assert left_out == ["networks: VGG-like 3x32x32, SGD step of 32"]


def test_a_backend_without_a_kernel_and_a_row_that_cannot_be_made_are_named_once(monkeypatch, tmp_path):
    def own_function(backend, kernel):
        raise LookupError(f"{backend} has no {kernel}")

    class Plan(worker.Plan):
        patience = TINY

        def rows(self):
            made = rows.Row("activations", "relu", "n=8", "float32", 8, lambda backends: work())
            return iter([made, dataclasses.replace(made, workload="n=9", make=lambda backends: raising())])

    monkeypatch.setattr(worker.bench_rows, "own_function", own_function)
    journal = worker.Journal(tmp_path / "journal")
    worker.Bench(Plan(passes=2, backends=("cython",)), journal).run()
    failed = [(one["contender"], one["reason"]) for one in journal.entries if one["event"] == "failed"]
    assert failed == [
        ("cython", "cython has no relu"),
        ("cython", "cython has no relu"),
        ("all", "the arrays cannot be made: RuntimeError: out of order"),
    ]
    assert [one["event"] for one in journal.entries].count("measured") == 2


#: A worker with one row, of which a contender does something to its process.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from fastnn.bench import rows, worker

def relu():
    return np.maximum(0.5, 0)

def bad():
    {does}

class Plan(worker.Plan):
    def rows(self):
        return iter(())

    def rival_works(self):
        yield "one", iter([rows.Work("first", 0, 8, relu, dict(numpy=relu))])
        yield "two", iter([rows.Work("second", 0, 8, relu, dict(numpy=relu, bad=bad, late=relu))])

journal = worker.Journal(Path(sys.argv[2]))
worker.Bench(Plan(passes=1, quick=True), journal).run()
"""


def run_script(monkeypatch, tmp_path, does):
    """The command with a worker of the above kind; its status and what it wrote."""
    output = tmp_path / "measured.json"
    monkeypatch.setattr(command, "measure_limits", lambda threads: LIMITS)
    monkeypatch.setattr(command, "WORKER", (sys.executable, "-c", SCRIPT.format(does=does)))
    return command.main(["--json", str(output)]), output


@of_posix
def test_a_rival_that_kills_the_process_is_named_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    status, output = run_script(monkeypatch, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert status == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    (failure,) = document["fastnn"]["failures"]
    assert failure["contender"] == "bad"
    assert failure["reason"] == "the process ended with SIGKILL"
    assert "bad failed at two: second" in capsys.readouterr().err
    assert [set(row.figures) for row in results.load(output).rows] == [{"numpy"}, {"numpy", "late"}]


@of_posix
@pytest.mark.parametrize(
    "does",
    [
        "os.kill(os.getppid(), signal.SIGINT); time.sleep(60)",
        "os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    for _ in range(3): os.kill(os.getppid(), signal.SIGINT); time.sleep(0.3)\n"
        "    os._exit(1)",
    ],
    ids=["ctrl-c", "terminated", "ctrl-c three times"],
)
def test_an_interrupted_run_keeps_what_was_measured(monkeypatch, tmp_path, capsys, does):
    status, output = run_script(monkeypatch, tmp_path, does)
    assert status == worker.INTERRUPTED
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["fastnn"]["interrupted"]
    assert [row.kernel for row in results.load(output).rows] == ["first"]
    told = capsys.readouterr()
    assert f"\ninterrupted; 1 benchmarks are in {output}\n" in told.err
    assert told.out.startswith("interrupted: what is here was measured before")


def test_a_file_that_cannot_be_written_is_a_clear_error(measured, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        command.main(["--show", str(measured[1]), "--html", str(tmp_path / "file" / "page.html")])
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_line_that_was_being_written_is_no_line(tmp_path):
    path = tmp_path / "journal"
    path.write_text('{"event": "begun"}\n{"event": "mea', encoding="utf-8")
    assert worker.read_journal(path) == [{"event": "begun"}]


# ----------------------------------------------------------------------------------------------------
# Timing and verdicts


def test_contenders_take_turns():
    order = []
    calls = {name: partial(order.append, name) for name in ("a", "b", "c")}
    clock = iter(np.arange(0.0, 1e6, 1.0)).__next__
    seconds, counts = timing.interleaved(calls, clock, timing.Patience(turn=1, seconds=3, least=3, most=3))
    assert counts == {"a": 1, "b": 1, "c": 1}
    assert seconds == {name: [1.0] * 3 for name in calls}
    assert "".join(order[-18:]) == "aabbccbbccaaccaabb"  # each once to warm the caches, once for the clock


def test_a_fast_call_is_made_often_in_a_turn():
    _, counts = timing.interleaved({"pass": lambda: None}, __import__("time").perf_counter, timing.QUICK)
    assert counts["pass"] > 100


def figure(*passes):
    return results.Figure(passes[0], passes[0], passes[0], passes)


@pytest.mark.parametrize(
    ("numpy", "cython", "verdict"),
    [
        ((2.0, 2.0), (1.0, 1.0), "win"),
        ((1.0, 1.0), (2.0, 2.0), "loss"),
        ((1.05, 0.9), (1.0, 1.0), "even"),
        ((1.0, 1.0), (1.05, 0.9), "even"),
        ((1.0, 1.0), (1.0, 1.0), "even"),
    ],
)
def test_no_difference_below_the_noise_is_a_win(numpy, cython, verdict):
    given = {"numpy": figure(*numpy), "cython": figure(*cython)}
    row = results.Row("kernels", "activations", "relu", "n=1", "float32", 1, 0, 8, given)
    assert row.ratio("cython").verdict == verdict
    assert row.ratio("numba") is None


def test_the_noise_of_a_ratio_is_at_least_what_is_usual():
    def row(name, *passes):
        return dataclasses.replace(
            ROW, kernel=name, figures={"numpy": figure(3.0, 3.0), "cython": figure(*passes)}
        )

    quiet, noisy, noisier = row("quiet", 1.0, 1.0), row("noisy", 1.0, 4.0), row("noisier", 1.0, 5.0)
    found = dataclasses.replace(run_of({}), rows=(quiet, noisy, noisier)).ratios("cython")
    assert quiet.ratio("cython").verdict == "win"
    assert found[quiet].noise == found[noisy].noise == pytest.approx(3.0)
    assert found[quiet].verdict == "even"
    assert found[noisier].noise == pytest.approx(4.0)


ROW = results.Row("kernels", "activations", "relu", "n=1e4", "float32", 1, 0, 8e4)


def run_of(figures, **changes):
    """Results with one row of relu."""
    row = dataclasses.replace(ROW, figures=figures)
    machine = {"processor": "P", "instruction set": "avx2"} | changes
    return results.Results(machine, "2026-01-02", "abc", (row,), {}, {1: LIMITS})


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((1.0, 1.0), (1.09, 1.09), "same"),
        ((1.0, 1.0), (1.11, 1.11), "slower"),
        ((1.0, 0.9), (1.15, 1.15), "same"),
        ((1.0, 1.0), (0.8, 0.8), "faster"),
        ((1.0, 1.0), (0.95, 0.95), "same"),
    ],
)
def test_a_row_is_slower_by_more_than_noise_and_margin(old, new, verdict):
    comparison = compare.compare(run_of({"cython": figure(*old)}), run_of({"cython": figure(*new)}), 0.1)
    (change,) = comparison.changes
    assert change.verdict == verdict
    assert (verdict == "same") == (f"{verdict}: cython, activations: relu n=1e4" not in str(comparison))


def test_what_only_one_run_has_is_told():
    old = run_of({"numpy": figure(1.0), "cython": figure(1.0), "numba": figure(1.0)})
    comparison = compare.compare(old, run_of({"cython": figure(1.0)}, processor="Q"))
    assert "not measured this time: numba, activations: relu n=1e4" in str(comparison)
    assert "warning: another processor: P before, Q now" in str(comparison)
    assert not comparison.failed
    assert compare.compare(run_of({}), old).failed
    assert compare.compare(run_of({}), old).added == tuple(
        f"{name}, activations: relu n=1e4" for name in ("cython", "numba")
    )


@pytest.mark.parametrize(("factor", "status"), [(0.01, 1), (100, 0)])
def test_the_exit_status_tells_whether_a_row_became_slower(measured, tmp_path, monkeypatch, factor, status):
    """The run of before, were it so much faster or slower, is what is compared with."""
    document = json.loads(measured[1].read_text(encoding="utf-8"))
    for one in document["benchmarks"]:
        stats, extra = one["stats"], one["extra_info"]
        stats.update({name: stats[name] * factor for name in ("median", "q1", "q3")})
        extra["passes"] = [seconds * factor for seconds in extra["passes"]]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(command, "measure_limits", lambda threads: LIMITS)
    asked = [
        "--quick",
        "--only",
        "softsign",
        "--backends",
        "numpy,cython",
        "--json",
        str(tmp_path / "new.json"),
    ]
    assert command.main([*asked, "--compare", str(old)]) == status


def test_another_schema_is_refused_before_anything_is_measured(tmp_path, capsys):
    old = tmp_path / "old.json"
    old.write_text('{"benchmarks": [], "version": "5.0"}', encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        command.main(["--compare", str(old)])
    assert "old.json was not written by" in capsys.readouterr().err


def test_products_are_counted():
    """Two operations for each weight at each place of the output; twice that backward."""
    made = {row.name: row for row in rows.kernel_rows()}
    linear = "32x784->128-float32"
    assert made[f"linear-{linear}"].make(["numpy"]).flops == 2 * 32 * 784 * 128
    assert made[f"linear_backward-{linear}"].make(["numpy"]).flops == 4 * 32 * 784 * 128
    assert made["relu-n=1e4-float32"].make(["numpy"]).flops == 0
    assert made["relu-n=1e4-float32"].make(["numpy"]).bytes == 2 * 4e4
    conv = next(row for row in made.values() if row.kernel == "conv2d" and "1x1x28x28" in row.workload)
    assert conv.make(["numpy"]).flops == 2 * 6 * 24 * 24 * 25


LIMITS = limits.Limits(
    {"float32": 1e11, "float64": 5e10},
    (limits.Level("L1", 1e4, 1e11), limits.Level("memory", float("inf"), 1e10)),
)


def test_a_limit_is_that_of_the_operations_or_of_the_memory():
    assert LIMITS.seconds(1e9, 1e3, "float32") == 1e9 / 1e11
    assert LIMITS.seconds(1e9, 1e3, "float64") == 1e9 / 5e10
    assert LIMITS.seconds(0, 1e4, "float32") == 1e4 / 1e11
    assert LIMITS.seconds(0, 1e5, "float32") == 1e5 / 1e10
    assert limits.Limits.parse(json.loads(json.dumps(LIMITS.as_json(), allow_nan=False))) == LIMITS


@pytest.fixture
def little_to_measure(monkeypatch):
    monkeypatch.setattr(limits, "ORDER", 64)
    monkeypatch.setattr(limits, "LARGEST", 2**20)
    monkeypatch.setattr(limits, "LEAST", 1e-4)
    monkeypatch.setattr(limits, "cache_sizes", lambda: {"L1": 2**15, "L2": 2**20})


@pytest.mark.usefixtures("little_to_measure")
def test_limits_are_measured():
    found = limits.measure(2)
    assert limits.Limits.parse(found.as_json()) == found
    assert [level.name for level in found.levels] == ["L1", "memory"]
    assert "GFLOP/s" in str(found)


@pytest.mark.usefixtures("little_to_measure")
@pytest.mark.parametrize("measuring", ["linear", "relu"])
def test_threads_that_measure_limits_are_one_thread_each(monkeypatch, measuring):
    """With the pool's workers beside them the limit of several threads would be too low."""
    function, allowed = getattr(fastnn, measuring), {}

    def watched(*arguments, **options):
        allowed.setdefault(threading.current_thread(), set()).add(fastnn.get_num_threads())
        return function(*arguments, **options)

    monkeypatch.setattr(fastnn, measuring, watched)
    before = fastnn.get_num_threads()
    fastnn.set_num_threads(2)
    try:
        limits.measure(2)
    finally:
        fastnn.set_num_threads(before)
    assert len(allowed) > 2
    assert all(counts == {1} for counts in allowed.values())


def test_caches_are_those_of_the_system_or_usual_ones(monkeypatch, tmp_path):
    for index, (level, kind, size) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n", encoding="utf-8")
    monkeypatch.setattr(limits, "SYSTEM", tmp_path)
    assert limits.cache_sizes() == {"L1": 48 * 2**10, "L2": 2**21}
    monkeypatch.setattr(limits, "SYSTEM", tmp_path / "none")
    assert limits.cache_sizes() == limits.CACHES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "was not written by"),
        ("{}", "KeyError: 'fastnn'"),
        ('{"fastnn": {"schema": 99}}', "its schema is 99; expected 1"),
        ('{"fastnn": {"schema": 1}, "benchmarks": [{}]}', "KeyError"),
        (
            '{"fastnn": {"schema": 1, "failures": [{"row": "relu"}]}, "benchmarks": []}',
            "KeyError: 'contender'",
        ),
        ('{"fastnn": {"schema": 1, "unavailable": ["numba"]}, "benchmarks": []}', "AttributeError"),
    ],
)
def test_a_file_of_another_kind_is_a_clear_error(tmp_path, text, problem):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(results.ResultsError, match=problem):
        results.load(path)


def test_the_command_is_listed_and_explains_itself():
    for options, expected in ((["--help"], "bench"), (["bench", "--help"], "--margin PERCENT")):
        command = [sys.executable, "-m", "fastnn", *options]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        assert expected in finished.stdout
    assert fastnn.bench.__doc__
