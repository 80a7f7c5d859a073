"""The process's worker threads, compiled for the baseline only: one pool for the kernels of all instruction sets."""

from cpython.pycapsule cimport PyCapsule_New

import threading

cdef extern from "engine/pool.h" nogil:
    const int HAS_WORKERS "FNN_HAS_WORKERS"
    struct fnn_pool_functions:
        pass
    const fnn_pool_functions fnn_the_pool
    int fnn_threads_default, fnn_threads_here
    void fnn_pool_prepare(unsigned long main_thread)
    int fnn_pool_threads()
    int fnn_pool_workers()

fnn_pool_prepare(threading.main_thread().ident)

#: What the modules of kernels take from here when they are imported.
POOL = PyCapsule_New(<void *> &fnn_the_pool, "fastnn_ext.baseline.threads.POOL", NULL)
#: Whether this build can have worker threads at all.
CAN_HAVE_WORKERS = bool(HAS_WORKERS)


def set_default(int count):
    """Let jobs use `count` threads, the caller's included, where the calling thread has no count of its own."""
    global fnn_threads_default
    fnn_threads_default = count


def set_here(int count):
    """Let jobs of the calling thread use `count` threads, or the default where `count` is 0; what was set before."""
    global fnn_threads_here
    cdef int before = fnn_threads_here
    fnn_threads_here = count
    return before


def allowed():
    """How many threads a job of the calling thread may use."""
    return fnn_pool_threads()


def workers():
    """How many workers exist."""
    return fnn_pool_workers()
