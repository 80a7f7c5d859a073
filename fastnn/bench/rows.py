"""What is measured: rows of work, each with those who do it. The kernels' rows follow from the contract."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from fastnn import _select
from fastnn._contract import KERNELS, Kernel
from fastnn.testing import Case, check_parity, make_case, workloads

Call = Callable[[], Any]

#: The backends in the order in which they take turns.
BACKENDS = ("numpy", "cython", "numba")
DTYPES = ("float32", "float64")
#: The family of the rows that compare a call on a small array with the NumPy expression that one would write.
CALLS = "a call"
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
TOLERANCE = 2e-4
#: How many multiply-adds of a product take the time of one element on its way through memory, in rough terms.
PRODUCTS_PER_ELEMENT = 100


@dataclass(frozen=True, eq=False)
class Statement:
    """A call as source: the clock's loop then has it without a Python function around it."""

    source: str
    names: Mapping[str, Any]

    def __call__(self) -> Any:
        """Run it once; what it gives."""
        return eval(self.source, dict(self.names))


@dataclass(frozen=True)
class Work:
    """One row, ready to run: what is computed, how much that is, and by whom."""

    name: str
    #: Multiplications with an addition count as two.
    flops: float
    #: Read and written, at least.
    bytes: float
    #: The answer in float64, by the definition.
    exact: Call
    contenders: Mapping[str, Call]
    #: Their answers, where a call returns something else.
    answers: Mapping[str, Call] | None = None
    #: The relative error that answers are allowed.
    tolerance: float = TOLERANCE
    #: How a contender's answer is judged, where not by `exact`.
    checks: Mapping[str, Call] = field(default_factory=dict)
    #: What must still hold after the timing.
    afterwards: Call | None = None
    #: Whose peak of multiply-adds limits it.
    dtype: str = "float32"


@dataclass(frozen=True)
class Row:
    """One row before its arrays are made."""

    family: str
    kernel: str
    workload: str
    dtype: str
    #: Or as good as that.
    elements: float
    make: Callable[[Iterable[str]], Work]

    @property
    def name(self) -> str:
        """What tells this row from the others of its family."""
        return "-".join(filter(None, (self.kernel, self.workload, self.dtype)))


def verify(work: Work, contender: str) -> float:
    """The seconds of the contender's first call; an AssertionError where its answer is not the definition's.

    Whoever trains gives another answer in each call: the first is the one to compare.
    """
    judged_by_itself = contender in work.checks
    exact = None if judged_by_itself else work.exact()
    call = (work.answers or work.contenders)[contender]
    start = time.perf_counter()
    answer = call()
    elapsed = time.perf_counter() - start
    if judged_by_itself:
        work.checks[contender]()
    else:
        _compare(answer, exact, work, contender)
    return elapsed


def failure_of(problem: Exception) -> str:
    """What a contender did, in a line: of a wrong answer, how far it is from the right one too."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    if isinstance(problem, AssertionError):
        told = [*lines[:1], *(line for line in lines[1:] if line.startswith(("Mismatched", "Max absolute")))]
        return f"wrong answer: {'; '.join(told)}"
    return f"{type(problem).__name__}: {''.join(lines[:1])}"


def _compare(answer: Any, exact: Any, work: Work, contender: str) -> None:
    for given, right in zip(_answers(answer), _answers(exact), strict=True):
        scale = max(float(np.abs(right).max(initial=0)), 1.0)
        np.testing.assert_allclose(
            given.reshape(right.shape),
            right,
            rtol=work.tolerance,
            atol=work.tolerance * scale,
            err_msg=f"{work.name}, {contender}",
        )


def _answers(result: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays of a result, as NumPy's."""
    if isinstance(result, (tuple, list)):
        return [array for one in result for array in _answers(one)]
    return [np.asarray(result, np.float64)]


# ----------------------------------------------------------------------------------------------------
# Kernels


def kernel_rows(dtypes: Iterable[str] = DTYPES[:1]) -> Iterator[Row]:
    """Every workload of every kernel."""
    for kernel in KERNELS.values():
        for workload, settings in workloads(kernel).items():
            for dtype in dtypes:
                products = PRODUCTS_PER_ELEMENT if kernel.conditioned else 1
                elements = math.prod(settings["sizes"].values()) / products
                make = partial(_kernel_work, kernel.name, workload, dtype)
                yield Row(kernel.family, kernel.name, workload, dtype, elements, make)


def _kernel_work(kernel: str, workload: str, dtype: str, backends: Iterable[str]) -> Work:
    """The arrays of a row are the same for all backends, and so is the buffer for `out` where a kernel takes it."""
    contract = KERNELS[kernel]
    settings = workloads(contract)[workload]
    case = make_case(contract, dtype, sizes=settings["sizes"], options=settings["options"])
    result = contract.definition(**case.fresh(), **case.options)
    out = _out(contract, result)
    functions = {name: own_function(name, kernel) for name in backends}
    updated = {name: [case.arguments[one].copy() for one in _updates(case)] for name in functions}

    def afterwards() -> None:
        for name, arrays in updated.items():
            assert all(np.isfinite(array).all() for array in arrays), f"{name}: an array blew up"

    return Work(
        f"{kernel} {workload}",
        _flops(case, result),
        _bytes(case, result),
        partial(contract.definition, **case.arguments, **case.options),
        {
            name: _statement(function, case, dict(zip(_updates(case), updated[name], strict=True)), out)
            for name, function in functions.items()
        },
        checks={
            name: partial(check_parity, function, case) if name != "numpy" else lambda: None
            for name, function in functions.items()
        },
        afterwards=afterwards,
    )


@cache
def own_function(backend: str, kernel: str) -> Callable[..., Any]:
    """The backend's own version of the kernel: what it would fall back to is no measurement of it."""
    (binding,) = (row for row in _select.backend(backend).report if row.kernel == kernel)
    if binding.backend != backend:
        raise LookupError(f"{backend} has no {kernel}: {binding.reason}")
    return binding.function


def _updates(case: Case) -> list[str]:
    return [name for name in case.kernel.updates if name in case.arguments]


def _out(kernel: Kernel, result: Any) -> dict[str, Any]:
    """The keyword argument `out` for the array that the kernel gives; a scalar needs no buffer, several are new."""
    if not kernel.has_out or kernel.has_outs:
        return {}
    written = result[1 if kernel.with_grad_of else 0] if isinstance(result, tuple) else result
    return {"out": np.empty_like(written)} if isinstance(written, np.ndarray) else {}


def _statement(
    function: Callable[..., Any], case: Case, updated: Mapping[str, Any], out: Mapping[str, Any]
) -> Statement:
    """The call with what can be positional by position."""
    bound = case.kernel.signature.bind(**{**case.arguments, **updated, **case.options, **out})
    names = {f"argument{i}": value for i, value in enumerate(bound.args)}
    call = ", ".join([*names, *(f"{name}={name}" for name in bound.kwargs)])
    return Statement(f"function({call})", {**names, **bound.kwargs, "function": function})


def _flops(case: Case, result: Any) -> float:
    """Of products with weights, each used at every place of the output; other kernels are measured by their bytes."""
    weights = [value for name, value in case.arguments.items() if name.startswith("weight")]
    if not weights or not case.kernel.conditioned:
        return 0.0
    first = result[0] if isinstance(result, tuple) else result
    outputs = case.arguments.get("grad_out", case.arguments.get("delta_next", first))
    products = 2 * outputs.size // len(weights[0]) * sum(weight.size for weight in weights)
    return float(products * (2 if case.kernel.backward_of else 1))


def _bytes(case: Case, result: Any) -> float:
    """Arguments, results, and once more what is updated."""
    given = [value for value in case.arguments.values() if isinstance(value, np.ndarray)]
    results = result if isinstance(result, tuple) else (result,)
    written = [value for value in results if isinstance(value, np.ndarray)]
    written += [case.arguments[name] for name in _updates(case)]
    return float(sum(array.nbytes for array in [*given, *written]))


# ----------------------------------------------------------------------------------------------------
# Calls


def call_rows(dtypes: Iterable[str] = DTYPES[:1]) -> Iterator[Row]:
    """What a call costs on small arrays; here "numpy" is the bare expression, not the definition, which checks."""
    for kernel in EXPRESSIONS:
        for size in SIZES:
            for way in WAYS:
                for dtype in dtypes:
                    make = partial(_call_work, kernel, size, way, dtype)
                    yield Row(CALLS, kernel, f"{size} elements, {way}", dtype, size, make)


def _call_work(kernel: str, size: int, way: str, dtype: str, backends: Iterable[str]) -> Work:
    x = np.linspace(-3, 3, size, dtype=dtype)
    names = {"np": np, "x": x, "y": np.empty_like(x)}
    which = WAYS.index(way)
    contenders = {
        name: Statement(EXPRESSIONS[kernel][which], names)
        if name == "numpy"
        else Statement(
            ("function(x)", "function(x, out=y)")[which],
            {**names, "function": own_function(name, kernel)},
        )
        for name in backends
    }
    exact = partial(KERNELS[kernel].definition, x.astype(np.float64))
    return Work(f"{kernel} {size} elements, {way}", 0.0, 2.0 * x.nbytes, exact, contenders)


# ----------------------------------------------------------------------------------------------------
# Choosing


def small_enough(rows: Iterable[Row], largest: float | None) -> list[Row]:
    """The rows of at most so many elements, and the smallest of each kernel; all, where there is no such number."""
    given = list(rows)
    if largest is None:
        return given
    smallest: dict[tuple[str, str], float] = {}
    for row in given:
        key = row.family, row.kernel
        smallest[key] = min(row.elements, smallest.get(key, math.inf))
    return [row for row in given if row.elements <= max(largest, smallest[row.family, row.kernel])]


def too_long(work: Work, largest: float | None) -> bool:
    """Whether the products take longer than so many elements."""
    return largest is not None and work.flops / 2 > largest * PRODUCTS_PER_ELEMENT
