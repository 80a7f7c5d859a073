"""Sums and maxima of flat arrays, by loops that LLVM turns into vector code.

Sums are added up in float64, piece by piece: within a piece additions may be reordered, which makes vector code of
them, and the sums of the pieces are compensated, so that the error does not grow with the length.

Parts of arrays are passed on as slices: an index with an offset may be negative, for all that Numba knows, and the
wrap-around of negative indices would keep a loop from becoming vector code.
"""

import numpy as np
from llvmlite import ir
from numba import types

from fastnn_ext.njit._options import intrinsic, njit

PIECE = 1024

inlined = njit(forceinline=True)
reordered = njit(fastmath={"contract", "reassoc"})


@inlined
def add(total, excess, term):
    """A sum and what rounding put on top of it (Kahan), which is nothing that counts for an infinite one."""
    exact = term - excess
    rounded = total + exact
    excess = (rounded - total) - exact
    return rounded, (excess if excess == excess else 0.0)


@reordered
def sum_of_piece(x):
    total = 0.0
    for i in range(x.size):
        total += x[i]
    return total


@njit
def sum_of(x):
    total, excess = 0.0, 0.0
    for start in range(0, x.size, PIECE):
        total, excess = add(total, excess, sum_of_piece(x[start : start + PIECE]))
    return total


@njit
def sum_rows(matrix, sums):
    """The sum of each column, in float64: there can be millions of rows."""
    total = np.zeros(sums.size, np.float64)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            total[j] += matrix[i, j]
    for j in range(sums.size):
        sums[j] = total[j]


def _flipped(builder, bits):
    """All bits but the sign flipped where that is set: bits of a real to an integer of the same order, and back."""
    sign = builder.ashr(bits, ir.Constant(bits.type, bits.type.width - 1))
    return builder.xor(bits, builder.lshr(sign, ir.Constant(bits.type, 1)))


@intrinsic
def _ordinal(typing_context, x):
    """An integer for each real, in their order."""

    def codegen(context, builder, signature, arguments):
        return _flipped(builder, builder.bitcast(arguments[0], ir.IntType(x.bitwidth)))

    return types.Integer.from_bitwidth(x.bitwidth, signed=True)(x), codegen


@intrinsic
def _at_ordinal(typing_context, ordinal, like):
    """The real, of the type of `like`, that has this ordinal."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(_flipped(builder, arguments[0]), context.get_value_type(like))

    return like(ordinal, like), codegen


@njit
def largest(x):
    """The largest element, or perhaps NaN if there is one.

    The largest of integers may be looked for in any order, and so in vector code.
    """
    best = _ordinal(x[0])
    for i in range(x.size):
        ordinal = _ordinal(x[i])
        best = ordinal if ordinal > best else best
    return _at_ordinal(best, x[0])
