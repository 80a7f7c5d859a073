"""Calls of element-wise kernels in which machine code looks at the arrays itself.

On a small array, Numba's way from Python to machine code costs more than NumPy's own functions: it finds the type of
each argument, and reads an array through a new object that keeps it alive. Here arrays are passed as bare references,
from which the code reads the fields of NumPy's `PyArrayObject`, decides whether it can do without the checks of
`fastnn_ext.checks`, and makes the new array. One code serves any number of dimensions, read-only or not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import NativeValue, box, models, register_model, unbox
from numpy import ndarray
from numpy.typing import NDArray

from fastnn_ext.checks import FLOAT32, FLOAT64
from fastnn_ext.njit._options import intrinsic, njit

# Fewer elements than this are done before another thread could make use of the interpreter.
_RELEASING_SIZE = 8192

# Where the fields of a PyArrayObject are; a part of NumPy's binary interface.
_TYPE = object.__basicsize__ - 8
_DATA, _NDIM, _SHAPE, _DTYPE, _FLAGS = (object.__basicsize__ + offset for offset in (0, 8, 16, 40, 48))
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400
_PLAIN = _C_CONTIGUOUS | _ALIGNED
_MAX_DIMS = 64

_INT = ir.IntType(64)
_inlined = njit(forceinline=True)


class Reference(types.Type):
    """A reference to a Python object, on which there is no hold: perhaps an array of `dtype`."""

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


_type_of = _field(_TYPE, types.intp)
_address = _field(_DATA, types.intp)
_ndim = _field(_NDIM, types.int32)
_shape = _field(_SHAPE, types.CPointer(types.intp))
_dtype_of = _field(_DTYPE, types.intp)
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
def _is_none(typing_context, reference):
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
def _new_like(typing_context, array):
    """A new plain array of the shape and dtype of `array`; null, with an exception set, where there is no memory."""
    number = np.dtype(array.dtype.name).num

    def codegen(context, builder, signature, values):
        ndim = builder.load(_pointer_to_field(context, builder, values[0], _NDIM, types.int32))
        shape = builder.load(
            _pointer_to_field(context, builder, values[0], _SHAPE, types.CPointer(types.intp))
        )
        strides = cgutils.alloca_once(builder, _INT, size=_MAX_DIMS)
        step = cgutils.alloca_once_value(builder, _INT(array.dtype.bitwidth // 8))
        last = builder.sub(builder.zext(ndim, _INT), _INT(1))
        with cgutils.for_range(builder, builder.add(last, _INT(1))) as loop:
            axis = builder.sub(last, loop.index)
            builder.store(builder.load(step), builder.gep(strides, [axis]))
            length = builder.load(builder.gep(shape, [axis]))
            builder.store(builder.mul(builder.load(step), length), step)
        small, data = ir.IntType(32), values[0].type
        kinds = [small, shape.type, strides.type, data, small, small]
        # Numba's own, which its ufuncs call; without strides it would make arrays in Fortran's order.
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(data, kinds), "numba_ndarray_new"
        )
        arguments = [ndim, shape, strides, ir.Constant(data, None), small(number), small(0)]
        return builder.call(function, arguments)

    return array(array), codegen


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
# Arrays that need no closer look


@_inlined
def _is_plain(array):
    return _flags(array) & _PLAIN == _PLAIN


@_inlined
def _size(array):
    size = 1
    for axis in range(_ndim(array)):
        size *= _shape(array)[axis]
    return size


@_inlined
def _is_alike(array, other):
    """Whether an object is a plain array, and of the same dtype and shape as an array."""
    if _type_of(other) != _type_of(array):
        return False
    if _dtype_of(other) != _dtype_of(array) or not _is_plain(other) or _ndim(other) != _ndim(array):
        return False
    same = True
    for axis in range(_ndim(array)):
        same &= _shape(other)[axis] == _shape(array)[axis]
    return same


@_inlined
def _is_same_or_separate(array, other):
    """Whether two plain arrays of one dtype and shape have all their memory in common, or none."""
    distance = abs(_address(array) - _address(other))
    return distance == 0 or distance >= _size(array) * _itemsize(array)


@_inlined
def _can_be_out(array, out):
    writable = _is_alike(array, out) and _flags(out) & _WRITEABLE != 0
    return writable and _is_same_or_separate(array, out)


# ----------------------------------------------------------------------------------------------------
# The parts of a function behind a call


@_inlined
def result(x, out):
    """A reference for y = f(x) to return: to a new array, to `out`, or, where there is nothing to do, neither."""
    if not _is_plain(x) or not (_is_none(out) or _can_be_out(x, out)):
        return _none(x)
    return _new_like(x) if _is_none(out) else _kept(out)


@_inlined
def result_of_two(g, x, out):
    """The same for y = f(g, x)."""
    if not _is_plain(g) or not _is_alike(g, x):
        return _none(g)
    if not (_is_none(out) or (_can_be_out(g, out) and _is_same_or_separate(x, out))):
        return _none(g)
    return _new_like(g) if _is_none(out) else _kept(out)


@_inlined
def is_nothing(reference):
    return _is_null(reference) or _is_none(reference)


@_inlined
def are_same(array, other):
    """Whether two arrays of one dtype and shape are the same memory."""
    return _address(array) == _address(other)


@_inlined
def elements(array):
    return carray(_data(array), (_size(array),))


@_inlined
def release(array):
    """Let other threads run, where there is enough to do for it; to be ended by `take_back`."""
    return _release_if(_size(array) >= _RELEASING_SIZE)


# ----------------------------------------------------------------------------------------------------
# Calls


class Call:
    """The machine code of `function` for each dtype, compiled at its first use.

    The function takes references to so many `arrays` and to `out`, of which `arrays[0]` must be an array of the
    dtype, and an option; it returns the array that it has written, or None where it has done nothing: where an
    object is not a plain array, or not like the first one.
    """

    __slots__ = ("_arrays", "_function", "float32", "float64")

    def __init__(self, function: Any, arrays: int) -> None:
        self._function, self._arrays = function, arrays
        self.float32: Callable[..., Any] = partial(self._first, "float32")
        self.float64: Callable[..., Any] = partial(self._first, "float64")

    def _first(self, dtype: str, *arguments: Any) -> Any:
        return self.compiled(dtype)(*arguments)

    def compiled(self, dtype: str) -> Callable[..., Any]:
        """The machine code for `dtype`."""
        signature = (*[Reference(getattr(types, dtype))] * (self._arrays + 1), types.float64)
        self._function.compile(signature)
        setattr(self, dtype, self._function.overloads[signature].entry_point)
        return getattr(self, dtype)

    def __call__(self, first: Any, *others: Any) -> Any:
        """What the machine code returns for arguments of any kind; None where there is none for them."""
        if type(first) is ndarray:
            dtype = first.dtype
            if dtype is FLOAT32:
                return self.float32(first, *others)
            if dtype is FLOAT64:
                return self.float64(first, *others)
        return None

    def checked(self, option: float, first: NDArray[Any], *others: NDArray[Any]) -> None:
        """Run on plain arrays of equal dtypes and shapes; the last one is written.

        Equal dtypes are not always the same object, by which the machine code knows them: views have the first one's.
        """
        dtype = first.dtype
        run = self.float32 if dtype.itemsize == FLOAT32.itemsize else self.float64
        run(first, *[array if array.dtype is dtype else array.view(dtype) for array in others], option)
