"""The Cython view of `engine/parallel.h`: jobs in chunks, on the threads of the process."""

from cpython.pycapsule cimport PyCapsule_GetPointer

cdef extern from "engine/parallel.h" nogil:
    enum:
        NO_MEMORY "FNN_NO_MEMORY"
        INTERRUPTED "FNN_INTERRUPTED"
    ctypedef int (*Task "fnn_task")(void *context, Py_ssize_t chunk) noexcept nogil
    const void *fnn_pool
    int run "fnn_run"(Task task, void *context, Py_ssize_t chunks, int threads)
    int run_to_end "fnn_run_to_end"(Task task, void *context, Py_ssize_t chunks, int threads)
    int poll "fnn_poll"()
    int team "fnn_team"(double work, double share)

cdef extern from *:
    """
    /* Python's exception is set already where a job was interrupted. */
    #define FNN_RAISE_WHAT_IS_SET() (-1)
    """
    int raise_what_is_set "FNN_RAISE_WHAT_IS_SET"() except -1


cdef inline int join_pool() except -1:
    """Take the functions of the pool; once, when a module is imported."""
    global fnn_pool
    from fastnn_ext.baseline.threads import POOL
    fnn_pool = PyCapsule_GetPointer(POOL, "fastnn_ext.baseline.threads.POOL")
    return 0


cdef enum:
    LOOK = 1 << 22  # elements or multiplications: some milliseconds


cdef inline int look(double work, double *done) noexcept nogil:
    """A look for signals where much has been done since the last; `done` is what has, 0 at first."""
    done[0] += work
    if done[0] < LOOK:
        return 0
    done[0] = 0
    return poll()


cdef inline int raise_if(int failed, str function) except -1:
    """The error behind the code of a job that has failed."""
    if failed == INTERRUPTED:
        raise_what_is_set()
    if failed:
        raise MemoryError(f"{function}: no memory for the workspace")
    return 0
