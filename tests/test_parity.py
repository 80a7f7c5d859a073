"""Every version of a kernel has the definition's values, dtypes and shapes over the whole grid of cases."""

from backends import cases_of

from fastnn import testing


def test_parity(kernel, dtype, backend, tally):
    function = backend.function(kernel)
    for case in cases_of(kernel.name, dtype):
        testing.check_parity(function, case)
        tally["parity"] += 1


def test_a_call_repeated_gives_the_same_bits(kernel, dtype, backend):
    function, case = backend.function(kernel), max(cases_of(kernel.name, dtype), key=_size)
    once, again = testing.run(function, case), testing.run(function, case)
    assert [_bytes(value) for _, value in once] == [_bytes(value) for _, value in again]


def _size(case):
    return sum(case.arguments[name].size for name in case.arrays)


def _bytes(value):
    return None if value is None else value.tobytes()
