"""Every kernel on its workloads, by every backend: the right answer first, then the time.

The arrays of a row are the same for all backends, and so is the buffer for `out` where a kernel takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastnn import KERNELS
from fastnn.testing import Case, check_parity, make_case, workloads

#: How many multiply-adds of a product take the time of one element on its way through memory, in rough terms.
PRODUCTS_PER_ELEMENT = 100


def rows() -> list[tuple[str, str, float]]:
    """Kernel, workload, and how many elements or as good as that it has."""
    return [
        (
            kernel.name,
            workload,
            math.prod(settings["sizes"].values()) / (PRODUCTS_PER_ELEMENT if kernel.conditioned else 1),
        )
        for kernel in KERNELS.values()
        for workload, settings in workloads(kernel).items()
    ]


@lru_cache(maxsize=1)
def case_of(kernel: str, workload: str, dtype: str) -> Case:
    """The arguments of a row."""
    return make_case(KERNELS[kernel], dtype, **workloads(KERNELS[kernel])[workload])


@lru_cache(maxsize=1)
def out_of(case: Case) -> dict[str, Any]:
    """The keyword argument `out` for the array that the kernel gives; a scalar needs no buffer, several are new."""
    if not case.kernel.has_out or case.kernel.has_outs:
        return {}
    result = case.kernel.definition(**case.arguments, **case.options)
    written = result[1 if case.kernel.with_grad_of else 0] if isinstance(result, tuple) else result
    return {"out": np.empty_like(written)} if isinstance(written, np.ndarray) else {}


def test_kernel(
    kernel: str,
    workload: str,
    dtype: str,
    turn: int,
    backend_name: str,
    function: Callable[..., Any],
    measure: Callable[..., None],
) -> None:
    """Time one workload of one kernel."""
    case = case_of(kernel, workload, dtype)
    if turn == 1 and backend_name != "numpy":
        check_parity(function, case)
    updated = {name: case.arguments[name].copy() for name in case.kernel.updates if name in case.arguments}
    bound = case.kernel.signature.bind(**{**case.arguments, **updated, **case.options, **out_of(case)})
    names = {f"argument{i}": value for i, value in enumerate(bound.args)}
    call = ", ".join([*names, *(f"{name}={name}" for name in bound.kwargs)])
    elements = sum(case.arguments[name].size for name in case.arrays)
    names |= {**bound.kwargs, "function": function}
    measure(f"function({call})", names, elements=elements, family=case.kernel.family)
    for name, value in updated.items():
        assert np.isfinite(value).all(), f"{name} blew up, and with it the figure"
