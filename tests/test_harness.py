"""The checks catch what they claim to catch: faults are planted in the definitions, each must be found."""

import ctypes

import backends
import numpy as np
import pytest

from fastnn import testing
from fastnn._contract import KERNELS

HAS_OUT = pytest.mark.kernels(having=lambda kernel: kernel.has_out)
VARIES = pytest.mark.kernels(having=lambda kernel: not is_zero_everywhere(kernel))
UPDATES = pytest.mark.kernels(having=lambda kernel: kernel.updates)
HAS_GRADIENT = pytest.mark.kernels(having=lambda kernel: kernel.forward is not None)


def planted(kernel, fault):
    """A version of `kernel` that calls `fault(definition, bound arguments)` instead of the definition."""

    def version(*args, **kwargs):
        bound = kernel.signature.bind(*args, **kwargs)
        return fault(lambda: kernel.definition(*bound.args, **bound.kwargs), bound.arguments)

    return version


def on_each_result(kernel, change):
    """A version whose float results, new or updated in place, are put through `change`."""

    def fault(call, arguments):
        result = call()
        for name in kernel.updates:
            if arguments.get(name) is not None:
                arguments[name][...] = change(arguments[name])
        if isinstance(result, tuple):
            return tuple(map(apply, result))
        return apply(result)

    def apply(value):
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f":
            return type(value)(change(value)) if isinstance(value, np.generic) else np.asarray(change(value))
        return value

    return planted(kernel, fault)


def complaint(check, version, case):
    """What the check says; nothing where it is content."""
    try:
        check(version, case)
    except AssertionError as error:
        return str(error)
    return ""


def assert_caught(check, version, kernel, *cases):
    """At least one of the cases must fail, with a message that names the kernel and the case."""
    assert any(
        kernel.name in message and case.id in message
        for case in cases
        for message in [complaint(check, version, case)]
    ), f"{check.__name__} does not see the fault in {kernel.name}"


def is_zero_everywhere(kernel):
    """Whether nothing an argument says can show: the derivative of a step."""
    return not any(np.any(value) for _, value in testing.run(kernel.definition, larger(kernel)))


def larger(kernel, dtype=np.float32):
    """A case without zero sizes, large enough for any fault to show."""
    case = testing.make_case(kernel, dtype)
    return testing.make_case(kernel, dtype, sizes=dict.fromkeys(case.sizes, 6))


def test_without_a_fault_the_checks_pass(kernel):
    """Else the faults below would be caught for the wrong reason."""
    for check in testing.CHECKS:
        check(planted(kernel, lambda call, arguments: call()), larger(kernel))


def test_a_hundred_units_of_the_last_place(kernel, dtype):
    size = 100 * max(kernel.ulp, 1) * np.finfo(dtype).eps

    def off(value):
        return value + size * np.maximum(np.abs(value), max(kernel.floor, 1e-3))

    assert_caught(testing.check_parity, on_each_result(kernel, off), kernel, larger(kernel, dtype))


def test_float64_for_float32(kernel):
    def widen(value):
        is_float = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"
        return value.astype(np.float64) if is_float else value

    def fault(call, arguments):
        for name in kernel.updates:
            arguments[name] = widen(arguments[name])
        result = call()
        return tuple(map(widen, result)) if isinstance(result, tuple) else widen(result)

    assert_caught(testing.check_parity, planted(kernel, fault), kernel, larger(kernel))


def test_the_last_row_is_never_written(kernel):
    def forget(value):
        value = np.array(value)
        value[..., -1:] = 123.5
        return value

    def forget_scalar(value):
        return forget(value) if np.ndim(value) else value + 123.5

    assert_caught(testing.check_parity, on_each_result(kernel, forget_scalar), kernel, larger(kernel))


DROPPABLE = [
    pytest.param(kernel, option, id=f"{kernel.name}-{option}")
    for kernel in KERNELS.values()
    for option, values in testing.options_of(kernel).items()
    if len(values) > 1 and option in kernel.signature.parameters and not is_zero_everywhere(kernel)
]


@pytest.mark.parametrize(("having", "option"), DROPPABLE)
def test_an_option_is_dropped(having, option):
    def fault(call, arguments):
        arguments[option] = testing.options_of(having)[option][0]
        return call()

    assert_caught(testing.check_parity, planted(having, fault), having, *testing.cases(having, sizes=()))


@pytest.mark.kernels(having=testing.options_of)
def test_options_are_unknown(kernel):
    def version(*args):
        return kernel.definition(*args)

    assert_caught(testing.check_parity, version, kernel, *testing.cases(kernel, sizes=()))


def test_an_optional_array_is_dropped(kernel):
    case = larger(kernel)
    for name in testing.optional_arrays(case):

        def fault(call, arguments, name=name):
            arguments[name] = None
            return call()

        assert_caught(testing.check_parity, planted(kernel, fault), kernel, case)


def test_an_argument_is_overwritten(kernel):
    def fault(call, arguments):
        result = call()
        next(value for name, value in arguments.items() if name not in kernel.updates)[...] = 7
        return result

    assert_caught(testing.check_parity, planted(kernel, fault), kernel, larger(kernel))


@UPDATES
def test_copies_are_updated(kernel):
    def fault(call, arguments):
        for name in kernel.updates:
            arguments[name] = np.copy(arguments[name])
        return call()

    assert_caught(testing.check_parity, planted(kernel, fault), kernel, larger(kernel))


@UPDATES
def test_only_plain_arrays_are_updated(kernel):
    def fault(call, arguments):
        for name in kernel.updates:
            arguments[name] = np.require(arguments[name], requirements="CA")
        return call()

    assert_caught(testing.check_out, planted(kernel, fault), kernel, larger(kernel))
    assert_caught(testing.check_layouts, planted(kernel, fault), kernel, larger(kernel))


@HAS_OUT
def test_out_is_ignored(kernel):
    def fault(call, arguments):
        arguments.pop("out", None)
        return call()

    assert_caught(testing.check_out, planted(kernel, fault), kernel, larger(kernel))


def on_out(kernel, change):
    """A version that does `change(out, its former values)` after the call, for each array where there are several."""

    def fault(call, arguments):
        outs = outs_in(arguments)
        before = [out.copy() for out in outs]
        result = call()
        for out, values in zip(outs, before, strict=True):
            change(out, values)
        return result

    return planted(kernel, fault)


def outs_in(arguments):
    """The arrays that a call is to write its results to."""
    out = arguments.get("out")
    return [one for one in (out if isinstance(out, tuple) else (out,)) if isinstance(one, np.ndarray)]


@HAS_OUT
def test_the_last_row_of_out_is_never_written(kernel):
    def keep_last(out, before):
        out[..., -1:] = before[..., -1:]

    assert_caught(testing.check_out, on_out(kernel, keep_last), kernel, larger(kernel))


@HAS_OUT
def test_out_is_added_to(kernel):
    def add(out, before):
        out += before

    assert_caught(testing.check_out, on_out(kernel, add), kernel, larger(kernel))


@HAS_OUT
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_neighbour_of_out_is_written(kernel, side):
    def spill(out, before):
        if out.flags.c_contiguous:
            ctypes.memset(out.ctypes.data + (out.nbytes if side == "after" else -1), 0, 1)

    assert_caught(testing.check_out, on_out(kernel, spill), kernel, larger(kernel))


@HAS_GRADIENT
def test_a_gradient_is_a_thousandth_too_large(kernel):
    version = on_each_result(kernel, lambda value: value + 1e-3 * np.maximum(np.abs(value), 0.1))
    assert_caught(testing.check_gradient, version, kernel, *testing.gradient_cases(kernel))


def with_arrays(kernel, change):
    """A version that puts its array arguments through `change`."""

    def fault(call, arguments):
        for name, value in arguments.items():
            if name not in kernel.updates and name != "out" and isinstance(value, np.ndarray):
                arguments[name] = change(value)
        return call()

    return planted(kernel, fault)


@VARIES
def test_strides_are_ignored(kernel):
    def read_as_contiguous(array):
        if not all(stride > 0 for stride in array.strides):
            return array
        return np.lib.stride_tricks.as_strided(array, strides=np.empty(array.shape, array.dtype).strides)

    assert_caught(testing.check_layouts, with_arrays(kernel, read_as_contiguous), kernel, larger(kernel))


@VARIES
def test_byte_order_is_ignored(kernel):
    def read_as_native(array):
        return array.view(array.dtype.newbyteorder("="))

    assert_caught(testing.check_layouts, with_arrays(kernel, read_as_native), kernel, larger(kernel))


def test_nan_is_taken_for_a_number(kernel):
    version = with_arrays(kernel, np.nan_to_num)
    assert_caught(testing.check_edges, version, kernel, larger(kernel))


def test_an_error_is_of_another_class(kernel):
    def fault(call, arguments):
        try:
            return call()
        except (ValueError, TypeError, IndexError) as error:
            raise RuntimeError(str(error)) from error

    assert_caught(testing.check_errors, planted(kernel, fault), kernel, larger(kernel))


def test_an_error_does_not_name_the_argument(kernel):
    def fault(call, arguments):
        try:
            return call()
        except (ValueError, TypeError, IndexError) as error:
            raise type(error)("something is wrong") from error

    assert_caught(testing.check_errors, planted(kernel, fault), kernel, larger(kernel))


def test_nothing_is_refused(kernel):
    def fault(call, arguments):
        try:
            return call()
        except (ValueError, TypeError, IndexError):
            return np.zeros(3)

    assert_caught(testing.check_errors, planted(kernel, fault), kernel, larger(kernel))


@pytest.mark.kernels(having=lambda kernel: kernel.has_out or kernel.updates)
def test_something_is_written_before_an_error(kernel):
    def fault(call, arguments):
        try:
            return call()
        except (ValueError, TypeError, IndexError):
            for value in (*outs_in(arguments), *map(arguments.get, kernel.updates)):
                if isinstance(value, np.ndarray) and value.flags.writeable and value.dtype.kind == "f":
                    value[...] = 1
            raise

    assert_caught(testing.check_errors, planted(kernel, fault), kernel, larger(kernel))


def test_a_backend_that_must_be_there_is_not_skipped(monkeypatch):
    monkeypatch.setattr(backends, "is_there", lambda backend: False)
    monkeypatch.delenv("FASTNN_BUILD", raising=False)
    monkeypatch.setenv("FASTNN_TEST_BACKENDS", "numba, cython-baseline")
    assert [backend.id for backend in backends.tested_backends("")] == ["cython-baseline", "numba"]
    monkeypatch.setenv("FASTNN_TEST_BACKENDS", "")
    assert backends.tested_backends("") == []
    monkeypatch.setenv("FASTNN_BUILD", "require")
    assert [backend.id for backend in backends.tested_backends("")][-1] == "cython-baseline"


def test_a_backend_that_is_not_there_fails():
    absent = backends.TestedBackend("numba", "fastnn_ext.no_such_folder")
    with pytest.raises(pytest.fail.Exception, match="numba lacks relu: "):
        absent.function(KERNELS["relu"])


def test_a_backend_that_does_not_exist_cannot_be_asked_for():
    with pytest.raises(pytest.UsageError, match="unknown backend 'torch'; known here: cython, "):
        backends.tested_backends("torch")
