"""Options and parameters of the test run.

`--backend=numpy` (or numba, cython, cython-avx2, ...; several with commas) narrows the backends. The variable
`FASTNN_TEST_BACKENDS` lists in the same words which must be there; `FASTNN_BUILD=require` means that compiled
ones must. What must be there and is not fails; nothing is skipped for being absent but comparisons with other
libraries, and what learns MNIST where `FASTNN_MNIST` does not name a folder of its files. The end of the run counts
them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import pytest
from backends import DTYPES, tested_backends
from hypothesis import HealthCheck, settings

from fastnn._contract import KERNELS

settings.register_profile(
    "fastnn",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("fastnn")

#: Marks of tests that need what fastnn does not need: what they are, whether it is there, and why not.
OPTIONAL = {
    "torch": ("comparisons with torch", find_spec("torch") is not None, "which is not installed"),
    "mnist": ("training on MNIST", "FASTNN_MNIST" in os.environ, "whose folder FASTNN_MNIST would name"),
}

_TALLY: Counter[str] = Counter()
_LEFT_OUT: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default="", help="test only these backends: numpy, cython-avx2, ...")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "kernels(having=...): only kernels for which having(kernel) is true")
    config.addinivalue_line("markers", "backends(having=...): only those for which having(backend) is true")
    for mark, (tests, _, _) in OPTIONAL.items():
        config.addinivalue_line("markers", f"{mark}: {tests}, which fastnn does not need")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of what is not there; the end of the run says so."""
    for mark in (mark for mark, (_, is_there, _) in OPTIONAL.items() if not is_there):
        marked = [item for item in items if item.get_closest_marker(mark)]
        if marked:
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if item not in marked]
            _LEFT_OUT[mark] = len(marked)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Kernel, then dtype, then backend, so that the cases of a kernel are made once for all backends."""

    def marked(marker: str, all_of_them: Iterable[Any]) -> list[Any]:
        mark = metafunc.definition.get_closest_marker(marker)
        return [one for one in all_of_them if mark is None or mark.kwargs["having"](one)]

    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", marked("kernels", KERNELS.values()), ids=lambda kernel: kernel.name)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
    if "backend" in metafunc.fixturenames:
        backends = tested_backends(metafunc.config.getoption("--backend"))
        metafunc.parametrize("backend", marked("backends", backends), ids=str)


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    """How many cases each battery has compared; printed at the end of the run."""
    return _TALLY


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for mark, count in _LEFT_OUT.items():
        tests, _, reason = OPTIONAL[mark]
        terminalreporter.write_line(f"left out: {count} {tests}, {reason}")
    if _TALLY:
        counts = ", ".join(f"{count} of {battery}" for battery, count in _TALLY.items())
        terminalreporter.write_line(f"{len(KERNELS)} kernels, {len(DTYPES)} dtypes; cases passed: {counts}")
