"""What this processor can run; compiled for the baseline only and imported before anything else is."""

cdef extern from "engine/cpu.h" nogil:
    int fnn_cpu_supports(const char *feature)
    const char *fnn_compiler()


def supports(str feature):
    """Whether the processor has `feature` (a gcc name, such as "avx2") and the operating system lets it be used."""
    return fnn_cpu_supports(feature.encode()) != 0


def compiler():
    """The compiler that built this module."""
    return fnn_compiler().decode()
