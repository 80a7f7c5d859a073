"""Other memory layouts, other kinds of number, NaN and infinity, `out` and what lies beside it."""

import pytest
from backends import small_cases_of

from fastnn import testing


@pytest.mark.kernels(having=lambda kernel: kernel.has_out or kernel.updates)
def test_out(kernel, dtype, backend, tally):
    _check(testing.check_out, kernel, dtype, backend, tally)


def test_layouts(kernel, dtype, backend, tally):
    _check(testing.check_layouts, kernel, dtype, backend, tally)


def test_nan_and_infinity(kernel, dtype, backend, tally):
    _check(testing.check_edges, kernel, dtype, backend, tally)


def _check(check, kernel, dtype, backend, tally):
    function = backend.function(kernel)
    for case in small_cases_of(kernel.name, dtype):
        check(function, case)
        tally[check.__name__.removeprefix("check_")] += 1
