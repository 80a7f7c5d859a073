"""What every kernel asks of its arguments, once for all backends.

The definitions and the Numba twins call these checks on every call. The Cython versions look at their arguments in C
and come here only for what is not a plain array (C-contiguous, aligned, native float32 or float64), so an error is
the same class with the same words from every backend. A check hands back plain arrays and an `Output`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
FLOAT16 = np.dtype(np.float16)

#: Effort allowed for the exact answer to "do these two strided arrays share an element?".
_OVERLAP_WORK = 10_000
#: The arguments of `floats` that a kernel can do without; None elsewhere is a TypeError.
_OPTIONAL = ("bias",)
#: The most bytes an array may have: half the address space, so that sums of two sizes never overflow.
_MAX_BYTES = 2**62


def wrong(error: type[Exception], function: str, argument: str, given: str, expected: str) -> Exception:
    """The one form of message: which function and argument, what was given, what was expected."""
    return error(f"{function}: {argument} {given}; expected {expected}")


def as_array(function: str, argument: str, value: Any) -> NDArray[Any]:
    """`value` as a base-class ndarray of any dtype; masked and ragged arrays are a TypeError or ValueError."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise wrong(TypeError, function, argument, "is a masked array", "an array without a mask")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise wrong(
            ValueError, function, argument, f"is not an array ({error})", "a rectangular array"
        ) from None


def as_real(function: str, argument: str, value: Any) -> NDArray[Any]:
    """`value` as an ndarray of a real dtype of at most 64 bits, its dtype unchanged."""
    array = as_array(function, argument, value)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "fiub" or (kind == "f" and size > 8):
        raise wrong(
            TypeError,
            function,
            argument,
            f"has dtype {array.dtype}",
            "a real dtype of at most 64 bits (float32, ...)",
        )
    return array


def float_dtype(arrays: Iterable[NDArray[Any]]) -> np.dtype[Any]:
    """The dtype of the result: NumPy's promotion, with integers and booleans counted as float64."""
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1:
        dtype = dtypes.pop()
        if dtype is FLOAT32 or dtype is FLOAT64:
            return dtype
        dtypes = {dtype}
    return np.result_type(*(dtype if dtype.kind == "f" else FLOAT64 for dtype in dtypes)).newbyteorder("=")


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a kernel works in: float32 for float16, else the result's own."""
    return FLOAT32 if dtype == FLOAT16 else dtype


def is_plain(array: NDArray[Any]) -> bool:
    """Whether compiled code can read `array` as it is: C-contiguous, aligned, in native byte order."""
    return bool(array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)


def plain(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """`array` itself where it is plain and of `dtype`, else a plain copy of it."""
    if array.dtype == dtype and is_plain(array):
        return array
    return np.array(array, dtype=dtype, order="C")


def checked_size(function: str, argument: str, shape: Iterable[int], itemsize: int = 8) -> None:
    """A ValueError where an array of `shape` could not be addressed (sizes are multiplied as Python integers)."""
    if itemsize * math.prod(map(int, shape)) > _MAX_BYTES:
        raise wrong(
            ValueError, function, argument, f"would have shape {tuple(shape)}", "a size that fits in memory"
        )


def floats(function: str, **arguments: Any) -> tuple[list[Any], list[Any], np.dtype[Any]]:
    """Plain arrays of one compute dtype from `arguments`, the originals, and the result's dtype; no bias is None."""
    dtype = _ready_dtype(arguments)
    if dtype is not None:
        values = list(arguments.values())
        return values, values, dtype
    given = [
        None if _is_left_out(name, value) else as_real(function, name, value)
        for name, value in arguments.items()
    ]
    dtype = float_dtype(array for array in given if array is not None)
    compute = compute_dtype(dtype)
    return [None if array is None else plain(array, compute) for array in given], given, dtype


class Output:
    """Where a kernel's result goes: a new array, or the caller's `out`; made by `output`."""

    __slots__ = ("_array", "_dtype", "_out", "_shape")

    def __init__(self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._out, self._shape, self._dtype = out, shape, dtype
        self._array: NDArray[Any] | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The plain array to be written by compiled code: `out` itself where that is possible."""
        if self._array is None:
            out, compute = self._out, compute_dtype(self._dtype)
            if out is None or out.dtype != compute or not is_plain(out):
                out = np.empty(self._shape, compute)
            self._array = out
        return self._array

    def deliver(self) -> NDArray[Any]:
        """What the caller gets, once `array` has been written."""
        array = self.array
        return array if self._out is None and array.dtype is self._dtype else self.fill(array)

    def fill(self, values: Any) -> NDArray[Any]:
        """What the caller gets when the result is `values`."""
        if self._out is None:
            if type(values) is np.ndarray and values.dtype is self._dtype:
                return values
            return np.asarray(values, self._dtype)
        out: NDArray[Any] = self._out
        if values is not out:
            np.copyto(out, values, casting="same_kind")
        return out


def output(
    function: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    reads: Iterable[NDArray[Any] | None] = (),
    in_place: bool = False,
    argument: str = "out",
) -> Output:
    """The Output for a result of `shape` and `dtype`.

    Parameters
    ----------
    function, argument : str
        The kernel and the name of its `out`, for messages.
    out : ndarray or None
        The caller's `out`.
    shape, dtype
        What the result has.
    reads : iterable of ndarray
        The arguments as the caller gave them; none may share memory with `out`.
    in_place : bool
        Whether an argument may be the very same array as `out` (element-wise kernels).

    Raises
    ------
    TypeError
        Where `out` is not an ndarray.
    ValueError
        Where `out` has another shape or dtype, is read-only, or overlaps an argument.
    """
    if out is None:
        checked_size(function, argument, shape, dtype.itemsize)
        return Output(None, shape, dtype)
    if not (type(out) is np.ndarray and out.dtype is dtype and out.shape == shape and out.flags.carray):
        _check_out(function, argument, out, shape, dtype)
    for array in reads:
        if array is not None and overlaps(array, out) and not (in_place and is_same(array, out)):
            expected = "the argument itself or separate memory" if in_place else "separate memory"
            raise wrong(ValueError, function, argument, "shares memory with an argument", expected)
    return Output(out, shape, dtype)


def _check_out(function: str, argument: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise wrong(TypeError, function, argument, f"is a {type(out).__name__}", "an ndarray or None")
    if out.shape != tuple(shape):
        raise wrong(ValueError, function, argument, f"has shape {out.shape}", f"shape {tuple(shape)}")
    if out.dtype.newbyteorder("=") != dtype:
        raise wrong(ValueError, function, argument, f"has dtype {out.dtype}", f"dtype {dtype}")
    if not out.flags.writeable:
        raise wrong(ValueError, function, argument, "is read-only", "a writable array")
    if any(stride == 0 and length > 1 for stride, length in zip(out.strides, out.shape, strict=True)):
        raise wrong(ValueError, function, argument, "repeats elements (a stride of 0)", "distinct elements")


class Updated:
    """The arrays that a kernel updates in place: `arrays` are plain, and `deliver` hands them back to the caller.

    What is not plain is updated in a plain copy, which `deliver` writes back whole.
    """

    __slots__ = ("_given", "arrays")

    def __init__(self, given: list[NDArray[Any]], dtype: np.dtype[Any]) -> None:
        self._given = given
        self.arrays = [plain(np.asarray(array), dtype) for array in given]

    def deliver(self) -> None:
        """Write back what was copied."""
        for given, array in zip(self._given, self.arrays, strict=True):
            if array is not given:
                np.copyto(given, array, casting="same_kind")


def updatable(function: str, argument: str, array: Any) -> None:
    """An error where `array` is no array of floats that can be written."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise wrong(TypeError, function, argument, f"is a {type(array).__name__}", "an ndarray to be written")
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        expected = "float32, float64 or float16, as it is written in place"
        raise wrong(TypeError, function, argument, f"has dtype {array.dtype}", expected)
    if not array.flags.writeable:
        raise wrong(ValueError, function, argument, "is read-only", "a writable array")
    if any(stride == 0 and length > 1 for stride, length in zip(array.strides, array.shape, strict=True)):
        raise wrong(ValueError, function, argument, "repeats elements (a stride of 0)", "distinct elements")


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays share an element; yes where that is too hard to tell."""
    if a is b:
        return a.size > 0
    if (a.flags.owndata and b.flags.owndata) or not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, max_work=_OVERLAP_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def is_same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are the same elements in the same order with the same dtype."""
    return a is b or (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
    )


def _is_ready(value: Any) -> bool:
    """Whether `value` needs no look: a plain float32 or float64 array. The common case, kept cheap."""
    return (
        type(value) is np.ndarray
        and (value.dtype is FLOAT32 or value.dtype is FLOAT64)
        and value.flags.carray
    )


def _is_left_out(name: str, value: Any) -> bool:
    return value is None and name in _OPTIONAL


def _ready_dtype(arguments: dict[str, Any]) -> np.dtype[Any] | None:
    """The dtype of arguments that are ready and have but one; else None."""
    dtype: np.dtype[Any] | None = None
    for name, value in arguments.items():
        if _is_left_out(name, value):
            continue
        if not _is_ready(value) or (dtype is not None and value.dtype is not dtype):
            return None
        dtype = value.dtype
    return dtype


def direct(out: Any, first: Any, *others: Any) -> NDArray[Any] | None:
    """The array that an element-wise kernel writes where nothing needs a closer look; None where something does.

    The common case, kept cheap: without an `Output`, and without the words of an error, which `elementwise` has.
    """
    if type(first) is not np.ndarray or not first.flags.carray:
        return None
    dtype, shape = first.dtype, first.shape
    if dtype is not FLOAT32 and dtype is not FLOAT64:
        return None
    for array in others if out is None else (out, *others):
        if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
            return None
        if not array.flags.carray:
            return None
    if out is None:
        return np.empty(shape, dtype)
    for array in (first, *others):
        owned = array.flags.owndata and out.flags.owndata
        if array is not out and not owned and np.may_share_memory(array, out):
            return None
    result: NDArray[Any] = out
    return result


def elementwise(function: str, out: Any, **arguments: Any) -> tuple[Any, ...]:
    """Plain arrays of one shape from `arguments`, then the Output of that shape."""
    first, *others = values = arguments.values()
    if all(map(_is_ready, values)) and all(
        value.dtype is first.dtype and value.shape == first.shape for value in others
    ):
        if out is None:
            return *values, Output(None, first.shape, first.dtype)
        return *values, output(function, out, first.shape, first.dtype, reads=values, in_place=True)
    arrays, given, dtype = floats(function, **arguments)
    shape = arrays[0].shape
    for name, array in zip(arguments, arrays, strict=True):
        if array.shape != shape:
            leader = next(iter(arguments))
            raise wrong(
                ValueError, function, name, f"has shape {array.shape}", f"shape {shape}, as {leader} has"
            )
    return *arrays, output(function, out, shape, dtype, reads=given, in_place=True)


def choice(function: str, argument: str, value: Any, known: Collection[Any]) -> Any:
    """`value` where it is one of the `known` ones, else a ValueError that lists them."""
    if (value is None or isinstance(value, str)) and value in known:
        return value
    raise wrong(ValueError, function, argument, f"is {value!r}", f"one of {', '.join(map(repr, known))}")


def number(
    function: str,
    argument: str,
    value: Any,
    *,
    low: float | None = None,
    below: float | None = None,
    finite: bool = False,
) -> float:
    """`value` as a float: a TypeError where it is no real number, a ValueError where it is out of range."""
    # float first: it needs no look into a registry
    is_scalar = isinstance(value, (float, Real, np.bool_))
    if not is_scalar and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise wrong(TypeError, function, argument, f"is {value!r}", "a real number")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong(TypeError, function, argument, f"is {value!r}", "a real number") from None
    if low is not None and not result >= low:
        raise wrong(ValueError, function, argument, f"is {value!r}", f"a number of at least {low:g}")
    if below is not None and not result < below:
        raise wrong(ValueError, function, argument, f"is {value!r}", f"a number below {below:g}")
    if finite and not np.isfinite(result):
        raise wrong(ValueError, function, argument, f"is {value!r}", "a finite number")
    return result


def integer(function: str, argument: str, value: Any, *, low: int, high: int = 2**31 - 1) -> int:
    """`value` as an int from `low` to `high`; a TypeError where it is no integer (booleans are none)."""
    if isinstance(value, (bool, np.bool_)):
        raise wrong(TypeError, function, argument, f"is {value!r}", "an integer")
    try:
        result = operator.index(value)
    except TypeError:
        raise wrong(TypeError, function, argument, f"is {value!r}", "an integer") from None
    if not low <= result <= high:
        raise wrong(ValueError, function, argument, f"is {result}", f"an integer from {low} to {high}")
    return result


def boolean(function: str, argument: str, value: Any) -> bool:
    """`value` as a bool; anything but a bool is a TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong(TypeError, function, argument, f"is {value!r}", "True or False")
    return bool(value)


def needed(function: str, needs: Any) -> tuple[bool, bool, bool]:
    """`needs` as three bools: whether the gradients of x, weight and bias are wanted."""
    expected = "three bools, for the gradients of x, weight and bias"
    for_x, for_weight, for_bias = booleans(function, "needs", needs, 3, expected)
    return for_x, for_weight, for_bias


def booleans(function: str, argument: str, value: Any, count: int, expected: str) -> tuple[bool, ...]:
    """`value` as a tuple of `count` bools."""
    if not isinstance(value, (tuple, list)):
        raise wrong(TypeError, function, argument, f"is {value!r}", expected)
    if len(value) != count:
        raise wrong(ValueError, function, argument, f"is {value!r}", expected)
    return tuple(boolean(function, argument, one) for one in value)


def gradients(
    function: str,
    out: Any,
    needs: tuple[bool, bool, bool],
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    dtype: np.dtype[Any],
    reads: Iterable[NDArray[Any]],
) -> tuple[Output | None, Output | None, Output | None]:
    """The Outputs of the gradients of x, weight and bias, None where not needed.

    `out` has a place for each: an array that shares no memory with what the kernel `reads` nor with one before it, or
    None for a new one; `out` is None for three new ones.
    """
    expected = "a tuple with an array or None for each gradient"
    if out is None:
        out = (None, None, None)
    elif not isinstance(out, tuple):
        raise wrong(TypeError, function, "out", f"is a {type(out).__name__}", expected)
    elif len(out) != 3:
        raise wrong(ValueError, function, "out", f"has {len(out)} members", expected)
    outputs: list[Output | None] = []
    used = list(reads)
    for i, (place, need, shape) in enumerate(zip(out, needs, shapes, strict=True)):
        argument = f"out[{i}]"
        if place is not None and not need:
            raise wrong(ValueError, function, argument, "is given", "None, as it is not needed")
        outputs.append(output(function, place, shape, dtype, reads=used, argument=argument) if need else None)
        used.append(place)
    for_x, for_weight, for_bias = outputs
    return for_x, for_weight, for_bias


def present(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def at_least(function: str, argument: str, array: NDArray[Any], ndim: int) -> None:
    """A ValueError where `array` has fewer than `ndim` dimensions."""
    if array.ndim < ndim:
        raise wrong(
            ValueError, function, argument, f"has shape {array.shape}", f"at least {ndim} dimension(s)"
        )


def has_shape(
    function: str,
    argument: str,
    array: NDArray[Any],
    shape: tuple[int | str, ...],
    because: str = "",
    *shown: object,
) -> None:
    """A ValueError where `array` is not of `shape`, in which a name stands for any length.

    It ends with the reason, `because` and what is `shown` behind it: put into words here, where there is an error.
    """
    have = array.shape
    if have == shape:
        return
    if len(have) == len(shape):
        for length, want in zip(have, shape, strict=True):
            if length != want and not isinstance(want, str):
                break
        else:
            return
    words = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    reason = " ".join(map(str, filter(None, (because, *shown))))
    expected = f"({words}){reason and f', {reason}'}"
    raise wrong(ValueError, function, argument, f"has shape {array.shape}", expected)
