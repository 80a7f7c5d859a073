"""The rows of `python -m fastnn bench` as tests: each is called once by each backend, with the right answer.

With `--benchmark-enable` pytest-benchmark times them, one after the other; `make bench` lets the backends take turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastnn import available_backends
from fastnn.bench.rows import BACKENDS, Row, Work, call_rows, kernel_rows, small_enough, verify
from fastnn.bench.worker import load_script

#: Workloads of more elements than this are left out, but for a kernel's smallest.
TESTED = 1e5


def backends_of_tests() -> list[str]:
    """Those that FASTNN_TEST_BACKENDS requires, or that are here."""
    required = os.environ.get("FASTNN_TEST_BACKENDS")
    wanted = required.split(",") if required else available_backends()
    return [name for name in BACKENDS if name in wanted]


@pytest.mark.parametrize("backend", backends_of_tests())
@pytest.mark.parametrize(
    "row", small_enough([*kernel_rows(), *call_rows()], TESTED), ids=lambda row: row.name
)
def test_row(row: Row, backend: str, benchmark: BenchmarkFixture) -> None:
    work = row.make([backend])
    verify(work, backend)
    benchmark.group = row.name
    benchmark(work.contenders[backend])
    if work.afterwards is not None:
        work.afterwards()


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_networks_answer_alike():
    for work in load_script("networks").rows():
        for contender in work.contenders:
            verify(work, contender)


def test_rivals_that_fail_or_are_wrong_are_named(capsys: pytest.CaptureFixture) -> None:
    rivals = load_script("rivals")

    def without_compiler() -> None:
        raise RuntimeError("no C++ compiler\nand more")

    def work(**contenders: Callable[[], Any]) -> Work:
        return Work("a sum", 1, 1, lambda: np.ones(1), {"fastnn": lambda: np.ones(1), **contenders})

    others = {"torch compiled": without_compiler, "jax": lambda: np.zeros(1)}
    assert list(rivals.answering(work(numpy=lambda: np.ones(1), **others))) == ["fastnn", "numpy"]
    failed, wrong = capsys.readouterr().err.splitlines()
    assert failed == "a sum: without torch compiled: RuntimeError: no C++ compiler"
    assert wrong.startswith("a sum: without jax: wrong answer: ")
    with pytest.raises(RuntimeError, match="no C"):
        rivals.answering(work(fastnn=without_compiler))
    with pytest.raises(AssertionError, match="a sum, fastnn"):
        rivals.answering(work(fastnn=lambda: np.zeros(1)))
