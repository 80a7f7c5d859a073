"""What a call costs on small arrays, against the NumPy expression that one would write instead.

Here "numpy" is that bare expression, not the definition, which checks its arguments as the others do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import KERNELS

SIZES = (1, 8, 64, 512, 4096)
#: The expression that makes a new array, and the one that writes into y.
EXPRESSIONS = {
    "relu": ("np.maximum(x, 0)", "np.maximum(x, 0, out=y)"),
    "sigmoid": ("1 / (1 + np.exp(-x))", "np.divide(1, 1 + np.exp(-x), out=y)"),
    "tanh": ("np.tanh(x)", "np.tanh(x, out=y)"),
    "softmax": (
        "(e := np.exp(x - x.max())) / e.sum()",
        "np.divide(e := np.exp(x - x.max()), e.sum(), out=y)",
    ),
}
WAYS = ("new array", "out=")


def rows() -> list[tuple[str, str, float]]:
    """Kernel, size with what becomes of the result, and the size."""
    return [
        (kernel, f"{size} elements, {way}", size)
        for kernel in EXPRESSIONS
        if kernel in KERNELS
        for size in SIZES
        for way in WAYS
    ]


def test_call(
    kernel: str,
    workload: str,
    dtype: str,
    turn: int,
    backend_name: str,
    function: Callable[..., Any],
    measure: Callable[..., None],
) -> None:
    """Time one call of one kernel on one small array."""
    size, _, way = workload.partition(" elements, ")
    x = np.linspace(-3, 3, int(size), dtype=dtype)
    names = {"np": np, "function": function, "x": x, "y": np.empty_like(x)}
    statements = EXPRESSIONS[kernel] if backend_name == "numpy" else ("function(x)", "function(x, out=y)")
    statement = statements[WAYS.index(way)]
    np.testing.assert_allclose(eval(statement, dict(names)), KERNELS[kernel].definition(x), rtol=1e-4)
    measure(statement, names, elements=int(size), family="a call")
