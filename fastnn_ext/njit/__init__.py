"""The Numba twins of the kernels; importing one of them imports Numba."""
