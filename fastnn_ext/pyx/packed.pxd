"""What a compiled module keeps with a packed weight (`fastnn_ext/checks/packed.py`): memory that it has filled once.

Each module has entries under its own name: another instruction set arranges weights otherwise. An entry is made with
the GIL held and never replaced, so it lives as long as the packed weight.
"""

cimport numpy as cnp
from common cimport PyArray_DATA, PyArray_EMPTY
from libc.stdint cimport uintptr_t

cdef enum:
    ALIGNMENT = 64


cdef inline cnp.ndarray room_for(Py_ssize_t bytes_):
    cdef cnp.npy_intp size = bytes_ + ALIGNMENT
    return PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)


cdef inline void *start_of(cnp.ndarray room) noexcept:
    return <void *> ((<uintptr_t> PyArray_DATA(room) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef inline const void *kept_with(object packed, str entry) except? NULL:
    """Where the entry begins; NULL where there is none."""
    room = (<dict> packed._prepared).get(entry)
    return NULL if room is None else start_of(<cnp.ndarray> room)


cdef inline const void *keep_with(object packed, str entry, cnp.ndarray room) except NULL:
    """Make `room` the entry, unless there has come to be one; where the entry begins."""
    return start_of(<cnp.ndarray> (<dict> packed._prepared).setdefault(entry, room))
