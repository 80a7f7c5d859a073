"""Calls of kernels in which machine code looks at the arguments itself.

On a small array, Numba's way from Python to machine code costs more than NumPy's own functions: it finds the type of
each argument, and reads an array through a new object that keeps it alive. Here all arguments are passed as bare
references, from which the code reads the fields of NumPy's `PyArrayObject`, decides whether it can do without the
checks of `fastnn_ext.checks`, and makes the results. One code serves any number of dimensions, read-only or not.
"""

import sys
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import NativeValue, box, models, register_model, unbox
from numpy.typing import NDArray

from fastnn_ext.checks import FLOAT32, FLOAT64
from fastnn_ext.njit._options import intrinsic, njit

# Fewer elements than this are done before another thread could make use of the interpreter.
_RELEASING_SIZE = 8192
# Up to so many, or multiply-adds, it can be kept from other threads: work that allocates must not be without it.
_BRIEF_SIZE = 1 << 16
_BRIEF_PRODUCTS = 1 << 22

# Where the fields of a PyArrayObject are; a part of NumPy's binary interface.
_TYPE = object.__basicsize__ - 8
_DATA, _NDIM, _SHAPE, _DTYPE, _FLAGS = (object.__basicsize__ + offset for offset in (0, 8, 16, 40, 48))
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400
_PLAIN = _C_CONTIGUOUS | _ALIGNED
_MAX_DIMS = 64
_LABEL_BYTES = np.dtype(np.intp).itemsize

_INT = ir.IntType(64)
inlined = njit(forceinline=True)


class Reference(types.Type):
    """A reference to any Python object, on which there is no hold: perhaps an array of `dtype`."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Reference({dtype})")


register_model(Reference)(models.OpaqueModel)


@unbox(Reference)
def _unbox_reference(typ: Reference, value: ir.Value, context: Any) -> NativeValue:
    return NativeValue(value)


@box(Reference)
def _box_reference(typ: Reference, value: ir.Value, context: Any) -> ir.Value:
    return value


# ----------------------------------------------------------------------------------------------------
# Python objects that machine code knows, by symbols that every process resolves for itself

_REDUCTIONS = sys.intern("mean"), sys.intern("sum")
_KNOWN = {
    "ndarray": np.ndarray,
    "float": float,
    "int": int,
    "true": True,
    "false": False,
    "mean": _REDUCTIONS[0],
    "sum": _REDUCTIONS[1],
    "float32": FLOAT32,
    "float64": FLOAT64,
    "label": np.dtype(np.intp),
    "scalar_float32": np.float32,
    "scalar_float64": np.float64,
}
for _name, _known in _KNOWN.items():
    binding.add_symbol(f"fastnn_object_{_name}", id(_known))


def _known_object(context, builder, name):
    symbol = f"fastnn_object_{name}"
    found = builder.module.globals.get(symbol)
    if found is None:
        found = ir.GlobalVariable(builder.module, ir.IntType(8), symbol)
    return found


def _is_known(name):
    """Whether a reference is to that very object."""

    @intrinsic
    def is_known(typing_context, reference):
        def codegen(context, builder, signature, values):
            known = _known_object(context, builder, name)
            return builder.icmp_unsigned("==", values[0], builder.bitcast(known, values[0].type))

        return types.boolean(reference), codegen

    return is_known


def _has_known(name, offset):
    """Whether the field of a reference at `offset` points to that object; "" stands for the reference's dtype."""

    @intrinsic
    def has_known(typing_context, reference):
        def codegen(context, builder, signature, values):
            known = _known_object(context, builder, name or reference.dtype.name)
            value = builder.load(_pointer_to_field(context, builder, values[0], offset, types.intp))
            return builder.icmp_unsigned("==", value, builder.ptrtoint(known, value.type))

        return types.boolean(reference), codegen

    return has_known


_is_true, _is_false = _is_known("true"), _is_known("false")
is_mean, is_sum = _is_known("mean"), _is_known("sum")
_is_ndarray, _is_float, _is_int = (_has_known(name, _TYPE) for name in ("ndarray", "float", "int"))
_has_own_dtype, _has_labels = _has_known("", _DTYPE), _has_known("label", _DTYPE)


# ----------------------------------------------------------------------------------------------------
# What is behind a reference


def _pointer_to_field(context, builder, array, offset, kind):
    field = builder.gep(array, [_INT(offset)])
    return builder.bitcast(field, context.get_value_type(kind).as_pointer())


def _field(offset: int, kind: types.Type) -> Any:
    @intrinsic
    def read(typing_context, array):
        def codegen(context, builder, signature, values):
            return builder.load(_pointer_to_field(context, builder, values[0], offset, kind))

        return kind(array), codegen

    return read


_address = _field(_DATA, types.intp)
ndim = _field(_NDIM, types.int32)
shape = _field(_SHAPE, types.CPointer(types.intp))
_flags = _field(_FLAGS, types.int32)


@intrinsic
def _data(typing_context, array):
    """A pointer to the elements of an array."""
    kind = types.CPointer(array.dtype)

    def codegen(context, builder, signature, values):
        return builder.load(_pointer_to_field(context, builder, values[0], _DATA, kind))

    return kind(array), codegen


@intrinsic
def _itemsize(typing_context, array):
    def codegen(context, builder, signature, values):
        return _INT(array.dtype.bitwidth // 8)

    return types.intp(array), codegen


@intrinsic
def _as_double(typing_context, reference):
    """The number behind a float or an int; NaN for an int that is too large."""

    def codegen(context, builder, signature, values):
        api = context.get_python_api(builder)
        number = cgutils.alloca_once_value(builder, api.float_as_double(values[0]))
        with builder.if_then(cgutils.is_not_null(builder, api.err_occurred()), likely=False):
            api.err_clear()
            builder.store(ir.Constant(ir.DoubleType(), float("nan")), number)
        return builder.load(number)

    return types.float64(reference), codegen


@intrinsic
def _labels(typing_context, array):
    """A pointer to the elements of an array of labels."""
    kind = types.CPointer(types.intp)

    def codegen(context, builder, signature, values):
        return builder.load(_pointer_to_field(context, builder, values[0], _DATA, kind))

    return kind(array), codegen


@intrinsic
def is_none(typing_context, reference):
    def codegen(context, builder, signature, values):
        none = context.get_python_api(builder).borrow_none()
        return builder.icmp_unsigned("==", values[0], builder.bitcast(none, values[0].type))

    return types.boolean(reference), codegen


@intrinsic
def _is_null(typing_context, reference):
    def codegen(context, builder, signature, values):
        return cgutils.is_null(builder, values[0])

    return types.boolean(reference), codegen


# ----------------------------------------------------------------------------------------------------
# References that a call returns, for which the caller is to answer; and the interpreter's lock


@intrinsic
def _none(typing_context, like):
    def codegen(context, builder, signature, values):
        api = context.get_python_api(builder)
        none = builder.bitcast(api.borrow_none(), values[0].type)
        api.incref(none)
        return none

    return like(like), codegen


@intrinsic
def _kept(typing_context, reference):
    """The reference itself, and a hold on the object."""

    def codegen(context, builder, signature, values):
        context.get_python_api(builder).incref(values[0])
        return values[0]

    return reference(reference), codegen


@intrinsic
def scalar(typing_context, value, like):
    """A NumPy scalar of the dtype of an array; null, with an exception set, where there is no memory."""

    def codegen(context, builder, signature, values):
        api = context.get_python_api(builder)
        number = api.float_from_double(values[0])
        kind = _known_object(context, builder, f"scalar_{like.dtype.name}")
        result = api.call_function_objargs(builder.bitcast(kind, number.type), [number])
        api.decref(number)
        return builder.bitcast(result, values[1].type)

    return like(types.float64, like), codegen


@intrinsic
def as_tuple(typing_context, references):
    """A tuple of what the references hold, each of which it takes over."""

    def codegen(context, builder, signature, values):
        api = context.get_python_api(builder)
        items = cgutils.unpack_tuple(builder, values[0])
        result = api.tuple_new(len(items))
        for i, item in enumerate(items):
            api.tuple_setitem(result, i, builder.bitcast(item, result.type))
        return builder.bitcast(result, items[0].type)

    return references[0](references), codegen


@intrinsic
def _new(typing_context, array, ndim, last):
    """A new plain array of the dtype of `array` and its first `ndim` axes, the last of them as long as `last`.

    Null, with an exception set, where there is no memory.
    """
    number = np.dtype(array.dtype.name).num

    def codegen(context, builder, signature, values):
        source, axes, last_length = values
        lengths = builder.load(
            _pointer_to_field(context, builder, source, _SHAPE, types.CPointer(types.intp))
        )
        shape, strides = (cgutils.alloca_once(builder, _INT, size=_MAX_DIMS) for _ in range(2))
        step = cgutils.alloca_once_value(builder, _INT(array.dtype.bitwidth // 8))
        last = builder.sub(axes, _INT(1))
        with cgutils.for_range(builder, axes) as loop:
            axis = builder.sub(last, loop.index)
            is_last = builder.icmp_signed("==", loop.index, _INT(0))
            length = builder.select(is_last, last_length, builder.load(builder.gep(lengths, [axis])))
            builder.store(length, builder.gep(shape, [axis]))
            builder.store(builder.load(step), builder.gep(strides, [axis]))
            builder.store(builder.mul(builder.load(step), length), step)
        small, data = ir.IntType(32), source.type
        kinds = [small, shape.type, strides.type, data, small, small]
        # Numba's own, which its ufuncs call; without strides it would make arrays in Fortran's order.
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(data, kinds), "numba_ndarray_new"
        )
        count = builder.trunc(axes, small)
        arguments = [count, shape, strides, ir.Constant(data, None), small(number), small(0)]
        return builder.call(function, arguments)

    return array(array, types.intp, types.intp), codegen


@intrinsic
def _release_if(typing_context, condition):
    """Let other threads have the interpreter, if so; what `take_back` needs."""

    def codegen(context, builder, signature, values):
        state = cgutils.alloca_once_value(builder, ir.Constant(context.get_value_type(types.voidptr), None))
        with builder.if_then(values[0]):
            builder.store(context.get_python_api(builder).save_thread(), state)
        return builder.load(state)

    return types.voidptr(condition), codegen


@intrinsic
def take_back(typing_context, state):
    """End what `release` has begun."""

    def codegen(context, builder, signature, values):
        with builder.if_then(cgutils.is_not_null(builder, values[0])):
            context.get_python_api(builder).restore_thread(values[0])
        return context.get_dummy_value()

    return types.void(state), codegen


# ----------------------------------------------------------------------------------------------------
# Arguments that need no closer look


@inlined
def is_array(reference):
    """Whether an object is a plain array of the dtype, and nothing derived from one."""
    return _is_ndarray(reference) and _has_own_dtype(reference) and _flags(reference) & _PLAIN == _PLAIN


@inlined
def are_labels(reference):
    """Whether an object is a plain array of labels."""
    return _is_ndarray(reference) and _has_labels(reference) and _flags(reference) & _PLAIN == _PLAIN


@inlined
def last_of(array):
    """The length of the last axis, which there must be."""
    return shape(array)[ndim(array) - 1]


@inlined
def size(array):
    size = 1
    for axis in range(ndim(array)):
        size *= shape(array)[axis]
    return size


@inlined
def rows(array):
    """How many rows run along the last axis; a single number is one."""
    rows = 1
    for axis in range(ndim(array) - 1):
        rows *= shape(array)[axis]
    return rows


@inlined
def have_rows_alike(array, other, axes):
    """Whether the first `axes` axes are of the same lengths."""
    same = True
    for axis in range(axes):
        same &= shape(other)[axis] == shape(array)[axis]
    return same


@inlined
def are_alike(array, other):
    """Whether an object is a plain array of the dtype, and of the same shape as an array."""
    return is_array(other) and ndim(other) == ndim(array) and have_rows_alike(array, other, ndim(array))


@inlined
def are_separate(array, other):
    """Whether two plain arrays of the dtype have no memory in common."""
    start, end = _address(array), _address(array) + size(array) * _itemsize(array)
    return _address(other) >= end or _address(other) + size(other) * _itemsize(other) <= start


@inlined
def are_apart(array, labels):
    """The same of a plain array of the dtype and one of labels."""
    start, end = _address(array), _address(array) + size(array) * _itemsize(array)
    return _address(labels) >= end or _address(labels) + size(labels) * _LABEL_BYTES <= start


@inlined
def are_same(array, other):
    """Whether two arrays of one dtype and shape are the same memory."""
    return _address(array) == _address(other)


@inlined
def is_writable(array):
    return _flags(array) & _WRITEABLE != 0


@inlined
def _can_be_out(array, out):
    return are_alike(array, out) and is_writable(out) and (are_same(array, out) or are_separate(array, out))


@inlined
def number(reference):
    """The number behind a float or an int; NaN for anything else."""
    return _as_double(reference) if _is_float(reference) or _is_int(reference) else np.nan


@inlined
def whole_number(reference):
    """The number behind an int, exactly; NaN for anything else."""
    value = _as_double(reference) if _is_int(reference) else np.nan
    return value if abs(value) < 2.0**53 else np.nan


@inlined
def is_finite(value):
    return value - value == 0


@inlined
def is_rate(value):
    return value >= 0 and is_finite(value)


@inlined
def is_boolean(reference):
    return _is_true(reference) or _is_false(reference)


@inlined
def is_true(reference):
    return _is_true(reference)


# ----------------------------------------------------------------------------------------------------
# The parts of a function behind a call


@inlined
def nothing(like):
    """What a function returns that has done nothing."""
    return _none(like)


@inlined
def done(array):
    """What a function returns that has written arrays in place: one of them."""
    return _kept(array)


@inlined
def new_like(array):
    return _new(array, ndim(array), last_of(array) if ndim(array) else 1)


@inlined
def new_rows(array, axes, last):
    """A new array with the first `axes` axes of another, the last of them as long as `last`."""
    return _new(array, axes, last)


@inlined
def result(x, out):
    """A reference for y = f(x) to return: to a new array, to `out`, or, where there is nothing to do, neither."""
    if not is_array(x) or not (is_none(out) or _can_be_out(x, out)):
        return _none(x)
    return new_like(x) if is_none(out) else _kept(out)


@inlined
def result_of_two(g, x, out):
    """The same for y = f(g, x)."""
    if not is_array(g) or not are_alike(g, x):
        return _none(g)
    if not (is_none(out) or (_can_be_out(g, out) and _can_be_out(x, out))):
        return _none(g)
    return new_like(g) if is_none(out) else _kept(out)


@inlined
def is_nothing(reference):
    return _is_null(reference) or is_none(reference)


@inlined
def elements(array):
    return carray(_data(array), (size(array),))


@inlined
def matrix(array, columns):
    """A plain array as rows of so many elements."""
    return carray(_data(array), (size(array) // max(columns, 1), columns))


@inlined
def labels(array):
    return carray(_labels(array), (size(array),))


@inlined
def release(array):
    """Let other threads run, where there is enough to do for it; to be ended by `take_back`."""
    return _release_if(size(array) >= _RELEASING_SIZE)


@inlined
def is_brief(array):
    return size(array) <= _BRIEF_SIZE


@inlined
def is_brief_product(m, n, k):
    """Whether there is something to multiply, and not too much."""
    return 0 < m * n * k <= _BRIEF_PRODUCTS


# ----------------------------------------------------------------------------------------------------
# Calls


class Call:
    """The machine code of `function` for each dtype, compiled when the first arrays of it have been checked.

    The function takes as many references as it has parameters and returns one: to what it has made or written, or to
    None where it has done nothing, as an argument needs a closer look. `runs` are the codes that there are, to be
    tried one after the other.
    """

    __slots__ = ("_codes", "_function", "runs")

    def __init__(self, function: Any) -> None:
        self._function = function
        self._codes: dict[int, Any] = {}
        self.runs: list[Any] = []

    def __call__(self, *arguments: Any) -> Any:
        """What the machine code returns for arguments of any kind; None where there is none for them."""
        for run in self.runs:
            result = run(*arguments)
            if result is not None:
                return result
        return None

    def prepare(self, array: NDArray[Any]) -> None:
        """Compile for arrays of this dtype, unless that is done."""
        self._code(_computed(array.dtype))

    def checked(self, first: NDArray[Any], *others: Any) -> Any:
        """Run on plain arrays of equal dtypes, and anything else.

        Equal dtypes are not always the same object, by which the machine code knows them, and an array may be
        derived from ndarray: those are passed as views.
        """
        dtype = _computed(first.dtype)
        return self._code(dtype)(*[_known_view(one, dtype) for one in (first, *others)])

    def _code(self, dtype: np.dtype[Any]) -> Any:
        return self._codes.get(dtype.itemsize) or self._compiled(dtype)

    def _compiled(self, dtype: np.dtype[Any]) -> Any:
        kind = Reference(getattr(types, dtype.name))
        signature = (kind,) * self._function.py_func.__code__.co_argcount
        self._function.compile(signature)
        run = self._codes[dtype.itemsize] = self._function.overloads[signature].entry_point
        if run not in self.runs:
            self.runs.append(run)
        return run


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return FLOAT32 if dtype.itemsize == FLOAT32.itemsize else FLOAT64


def _known_view(value: Any, dtype: np.dtype[Any]) -> Any:
    if not isinstance(value, np.ndarray) or (type(value) is np.ndarray and value.dtype is dtype):
        return value
    return value.view(dtype, np.ndarray)
