"""Activations that another kernel applies to its result: linear(..., activation="relu") and the like.

Their loops are compiled in the activations module alone. Other modules of the same instruction set take the table of
them from there on first use, so that no loop is compiled or loaded twice.
"""

from common cimport loop2_f32, loop2_f64, loop_f32, loop_f64
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject

cdef struct Activation:
    PyObject *name          # NULL ends the table
    loop_f32 f32            # f32(x, y, n, option): y = f(x), where y may be x
    loop_f64 f64
    loop2_f32 backward_f32  # backward_f32(g, y, grad, n, option): grad = g * f' from f's result y; NULL where y is not enough
    loop2_f64 backward_f64
    double option

cdef extern from *:
    """
    static const void *fnn_fused_table;  /* a variable of each module that uses this file */
    """
    const void *fnn_fused_table


cdef inline const Activation *activation_of(str function, object activation) except? NULL:
    """The activation of that name; NULL for None. Unknown names are the check's ValueError."""
    if activation is None:
        return NULL
    global fnn_fused_table
    if fnn_fused_table == NULL:
        from .activations import FUSED
        fnn_fused_table = PyCapsule_GetPointer(FUSED, NULL)
    cdef const Activation *row = find_activation(<const Activation *> fnn_fused_table, activation)
    if row == NULL:
        from fastnn_ext.checks.activations import fused
        row = find_activation(<const Activation *> fnn_fused_table, fused(function, activation))
    return row


cdef inline const Activation *find_activation(const Activation *row, object name) noexcept:
    """By identity, which finds every name that stands in a program's text: those are interned, as the table's are."""
    while row.name != NULL:
        if row.name == <PyObject *> name:
            return row
        row += 1
    return NULL
