"""Compiling Numba's kernels before they are needed."""

from __future__ import annotations

from collections.abc import Iterable

import fastnn
from fastnn import _select
from fastnn._contract import KERNELS
from fastnn_ext.checks import FLOAT32, FLOAT64


def warmup(backend: str | None = None, *, kernels: Iterable[str] | None = None) -> None:
    """Compile ahead what a backend would compile when it is first called.

    Numba's kernels are called once on small C-contiguous arrays of float32 and of float64, with each value of each
    option, so that no later call on such arrays waits for the compiler: a few minutes for all kernels, or seconds where
    `FASTNN_NUMBA_CACHE=1` finds the code of an earlier process. Other backends have nothing to compile.

    Parameters
    ----------
    backend : str, optional
        "cython", "numba" or "numpy"; by default the one behind the public names.
    kernels : iterable of str, optional
        The names of the kernels; all by default.

    Raises
    ------
    ValueError
        Where the backend or a kernel is unknown.
    BackendError
        Where the backend is not installed or not built, or, with `FASTNN_STRICT=1`, lacks a kernel.

    Examples
    --------
    >>> fastnn.warmup("numba", kernels=["linear", "linear_backward"])
    """
    wanted = tuple(KERNELS) if kernels is None else tuple(kernels)
    for name in wanted:
        if name not in KERNELS:
            raise ValueError(f"warmup: kernels has {name!r}; expected names of kernels, such as 'relu'")
    bindings = fastnn.report() if backend is None else _select.backend(backend).report
    for binding in bindings:
        if binding.backend == "numba" and binding.kernel in wanted:
            _call_with_all_options(binding)


def _call_with_all_options(binding: _select.Binding) -> None:
    from fastnn import testing  # here, for it takes as much time to import as all the rest

    kernel = KERNELS[binding.kernel]
    for dtype in (FLOAT32, FLOAT64):
        for case in testing.cases(kernel, dtype, sizes=()):
            testing.call(binding.function, kernel, case.fresh(), case.options)
