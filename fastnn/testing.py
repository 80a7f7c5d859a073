"""From the contract to cases and checks: what every version of a kernel is held to.

`cases(kernel, dtype)` makes the arguments that `@kernel(example=..., options=...)` describes; a check calls a
function with them and raises an AssertionError that names the kernel, the function's module and the case:

`check_parity`
    the definition's values, dtypes and shapes, within the promised error;
`check_gradient`
    derivatives and backward functions against central differences of the forward definition;
`check_out`
    `out` and in-place arguments: returned, filled, nothing beside them written, aliases right or refused;
`check_layouts`
    strided, byte-swapped, memory-mapped and other arrays, lists, integers, float16, mixed dtypes;
`check_edges`
    NaN, infinities and values where exponentials overflow;
`check_errors`
    bad arguments: the definition's class of error, function and argument named, nothing written.

The tests of fastnn and its benchmarks use this module. A backend written elsewhere can do the same: call
`check_kernel(function, KERNELS["relu"])`.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, combinations, cycle
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn._contract import Kernel

Array = NDArray[Any]
Function = Callable[..., Any]
#: What a call gave, labelled: the result or each member of it, then each argument that was updated.
Results = tuple[tuple[str, Any], ...]

#: Lengths that each symbol takes in turn: none, one, around SIMD widths and register tiles, beyond a block.
SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 97, 257)
#: Lengths of the symbols that a case does not set: small and different, so that no two axes can be mistaken.
DEFAULT_SIZES = (5, 3, 7, 4, 6, 2, 8)
#: The number of elements, or of terms in all, in the one large case; more than the work that keeps the GIL.
LARGE = 2**17
#: How many cases of randomly combined options and lengths.
COMBINATIONS = 8

#: Step of the central differences in float64, where truncation and rounding are both around 1e-10.
STEP = 1e-5
#: The error allowed to central differences, relative to the largest of them (at least 1).
GRADIENT_TOLERANCE = 1e-6

FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)


class Draw:
    """Sizes and numbers for an example, the same for the same `seed`; `sizes` records the symbols used."""

    def __init__(
        self, dtype: DTypeLike = FLOAT64, sizes: Mapping[str, int] | None = None, seed: int = 0
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.sizes: dict[str, int] = {}
        self._given = dict(sizes or {})
        self._rng = np.random.default_rng(seed)

    def size(self, symbol: str, low: int = 0) -> int:
        """The length that stands for `symbol`, at least `low`."""
        if symbol not in self.sizes:
            default = DEFAULT_SIZES[len(self.sizes) % len(DEFAULT_SIZES)]
            self.sizes[symbol] = self._given.get(symbol, default)
        self.sizes[symbol] = max(low, self.sizes[symbol])
        return self.sizes[symbol]

    def real(self, *shape: int, low: float = -3.0, high: float = 3.0) -> Array:
        """Evenly spread numbers between `low` and `high`."""
        drawn: Any = FLOAT64 if self.dtype == FLOAT64 else FLOAT32
        values: Array = self._rng.random(shape, drawn)
        values *= high - low
        values += low
        return values.astype(self.dtype, copy=False)

    def labels(self, *shape: int, classes: int) -> NDArray[np.intp]:
        """Integers from 0 to `classes - 1`."""
        return self._rng.integers(0, max(classes, 1), shape, np.intp)


@dataclass(frozen=True, eq=False)
class Case:
    """Arguments for one call of a kernel, and those of the forward kernel that they come from."""

    kernel: Kernel
    dtype: np.dtype[Any]
    sizes: Mapping[str, int]
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    forward_arguments: Mapping[str, Any] = field(default_factory=dict)
    forward_options: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""
    #: What the definition gives for changed arguments, by the change.
    known: dict[str, tuple[Expected, ...]] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        """Kernel, dtype, sizes and options in one word."""
        settings = {**self.sizes, **self.forward_options, **self.options}
        parts = [self.kernel.name, str(self.dtype), *(f"{name}={value}" for name, value in settings.items())]
        return "-".join([*parts, self.remark] if self.remark else parts).replace(" ", "")

    @property
    def floats(self) -> tuple[str, ...]:
        """The arguments that are arrays of floating-point numbers (labels and indices are not)."""
        return tuple(name for name, value in self.arguments.items() if _is_float(value))

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arguments that are arrays."""
        return tuple(name for name, value in self.arguments.items() if _is_array(value))

    def fresh(self) -> dict[str, Any]:
        """The arguments with every array copied."""
        return {name: np.copy(value) if _is_array(value) else value for name, value in self.arguments.items()}

    @cached_property
    def expected(self) -> tuple[Expected, ...]:
        """What the definition gives in float64."""
        return _expect(self)

    @cached_property
    def differences(self) -> dict[str, Array]:
        """The gradient of sum(grad_out * forward) for each forward argument, by central differences."""
        return _central_differences(self)


class Expected(NamedTuple):
    """One result of the definition in float64, and the magnitude that errors are relative to."""

    label: str
    value: Any
    scale: Any


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


# ----------------------------------------------------------------------------------------------------
# Cases


def options_of(kernel: Kernel) -> dict[str, tuple[Any, ...]]:
    """The values of each option that are tried: the kernel's own, and those its forward kernel shares.

    On options that it does not take, a derivative depends only through what the forward saved beside its value.
    """
    forward, parameters = kernel.forward, kernel.signature.parameters
    if forward is None:
        return dict(kernel.options)
    has_saved = any(name in parameters for name in forward.results[1:])
    shared = {
        name: values
        for name, values in forward.options.items()
        if name in parameters or (has_saved and not name.startswith("return_"))
    }
    return {**shared, **kernel.options}


def make_case(
    kernel: Kernel,
    dtype: DTypeLike = FLOAT64,
    *,
    sizes: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
    smooth: bool = False,
    seed: int = 0,
) -> Case:
    """One case of `kernel`.

    Parameters
    ----------
    kernel : Kernel
        From `fastnn._contract.KERNELS`.
    dtype : dtype
        What the example's real numbers are drawn in.
    sizes : mapping of str to int
        The length that stands for each symbol of the example; the others take one of `DEFAULT_SIZES`.
    options : mapping
        Options of the kernel and of its forward kernel; others are left out where they have a default.
    without : iterable of str
        Optional arrays (`bias`) that are left out.
    smooth : bool
        Whether numbers keep away from the kernel's kinks.
    seed : int
        Of the random numbers.
    """
    chosen = dict(options or {})
    draw = Draw(dtype, sizes, seed)
    source = kernel if kernel.example is not None or kernel.forward is None else kernel.forward
    if source.example is None:
        raise TypeError(f"{kernel.name} has no example, nor has a kernel that it is the derivative of")
    arguments = source.example(draw, **{name: values[0] for name, values in source.options.items()} | chosen)
    arguments = {name: value for name, value in arguments.items() if name not in without}
    if smooth:
        arguments = {name: _away_from(source.kinks, value) for name, value in arguments.items()}
    source_options = _options_for(source, chosen)
    own, own_options = arguments, source_options
    if source is not kernel:
        own = _arguments_from_forward(kernel, source, draw, arguments, source_options)
        own_options = _options_for(kernel, chosen)
    remark = "".join(f"no {name}" for name in without)
    return Case(kernel, draw.dtype, draw.sizes, own, own_options, arguments, source_options, remark)


def _options_for(kernel: Kernel, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The `chosen` options that `kernel` takes, and the first value of each that it cannot do without."""
    tried = options_of(kernel)
    return {
        name: chosen.get(name, tried.get(name, (None,))[0])
        for name, parameter in kernel.signature.parameters.items()
        if name in chosen or (name in tried and parameter.default is parameter.empty)
    }


def _away_from(kinks: Iterable[float], value: Any) -> Any:
    if _is_float(value):
        for kink in kinks:
            value = np.where(np.abs(value - kink) < 100 * STEP, value.dtype.type(kink + 200 * STEP), value)
    return value


def gradients_of(kernel: Kernel) -> dict[str, str]:
    """The arguments that are gradients of results of the forward kernel, each with that result's name."""
    if kernel.forward is None:
        return {}
    named = {"grad_out" if name == "y" else f"grad_{name}": name for name in kernel.forward.results}
    return {name: result for name, result in named.items() if name in kernel.signature.parameters}


def _arguments_from_forward(
    kernel: Kernel, forward: Kernel, draw: Draw, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a derivative takes, by parameter name, from a call of the forward kernel's definition."""

    @cache
    def saved() -> dict[str, Any]:
        fresh = {name: np.copy(value) if _is_array(value) else value for name, value in arguments.items()}
        returning = {name: True for name in forward.options if name.startswith("return_")}
        result = forward.definition(**fresh, **{**options, **returning})
        return dict(zip(forward.results, result if isinstance(result, tuple) else (result,), strict=True))

    def value_of(name: str) -> Any:
        if name in arguments:
            return arguments[name]
        if name in gradients:
            return draw.real(*np.shape(saved()[gradients[name]]))
        if name == "input_shape":
            return arguments["x"].shape
        return saved()[name] if name in forward.results else None

    gradients = gradients_of(kernel)
    values = {name: value_of(name) for name in kernel.signature.parameters if name not in options_of(kernel)}
    return {name: value for name, value in values.items() if value is not None}


def cases(
    kernel: Kernel,
    dtype: DTypeLike = FLOAT64,
    *,
    sizes: Iterable[int] = SIZES,
    options: Mapping[str, Iterable[Any]] | None = None,
) -> list[Case]:
    """The grid: each symbol at each of `sizes`, each option at each value, and some combinations of both.

    Parameters
    ----------
    kernel : Kernel
        From `fastnn._contract.KERNELS`.
    dtype : dtype
        What the example's real numbers are drawn in.
    sizes : iterable of int
        Lengths for each symbol in turn, the other symbols at their default.
    options : mapping, optional
        Values to try instead of those of the contract.
    """
    lengths = tuple(sizes)
    tried = {name: tuple(values) for name, values in (options or options_of(kernel)).items()}
    plain = make_case(kernel, dtype)
    grid: list[dict[str, Any]] = [{}]
    grid += [{"without": (name,)} for name in optional_arrays(plain)]
    grid += [{"sizes": {symbol: length}} for symbol in plain.sizes for length in lengths]
    grid += [{"sizes": dict.fromkeys(plain.sizes, length)} for length in (0, 1)]
    if plain.sizes and lengths:
        grid += [{"sizes": dict.fromkeys(plain.sizes, _large(plain))}]
    grid += [{"options": {name: value}} for name, values in tried.items() for value in values]
    made = [make_case(kernel, dtype, seed=seed, **settings) for seed, settings in enumerate(grid)]
    made += [case for case in _combinations(plain, tried, lengths) if is_valid(case)]
    return list({case.id: case for case in made}.values())


def _large(plain: Case) -> int:
    """The length at which all symbols together make `LARGE` elements."""
    length: int = round(LARGE ** (1 / max(len(plain.sizes), 1)))
    return length


def _combinations(
    plain: Case, tried: Mapping[str, tuple[Any, ...]], lengths: tuple[int, ...]
) -> Iterator[Case]:
    """Random options and lengths together; lengths at which the work stays small."""
    rng = np.random.default_rng(0)
    bound = min(2 * _large(plain), 40)
    for seed in range(COMBINATIONS if len(tried) > 1 else 0):
        options = {name: values[rng.integers(len(values))] for name, values in tried.items()}
        sizes = {symbol: int(rng.choice(lengths)) % bound for symbol in plain.sizes if lengths}
        yield make_case(plain.kernel, plain.dtype, sizes=sizes, options=options, seed=seed)


def is_valid(case: Case) -> bool:
    """Whether the definition takes this combination of options."""
    try:
        call(case.kernel.definition, case.kernel, case.fresh(), case.options)
    except ValueError:
        return False
    return True


def optional_arrays(case: Case) -> tuple[str, ...]:
    """The array arguments that a call can leave out."""
    parameters = case.kernel.signature.parameters
    return tuple(name for name in case.arrays if parameters[name].default is not parameters[name].empty)


def workloads(kernel: Kernel) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The benchmarks' sizes and options, as `make_case` takes them; a derivative may have its forward's."""
    described = kernel.workloads or (kernel.forward.workloads if kernel.forward else {})
    names = {**options_of(kernel), **(options_of(kernel.forward) if kernel.forward else {})}
    return {
        workload: {
            "sizes": {name: value for name, value in settings.items() if name not in names},
            "options": {name: value for name, value in settings.items() if name in names},
        }
        for workload, settings in described.items()
    }


# ----------------------------------------------------------------------------------------------------
# Calls


def call(
    function: Function, kernel: Kernel, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> Results:
    """Call `function` with what can be positional by position, as the definition's signature has it."""
    bound = kernel.signature.bind(**arguments, **options)
    result = function(*bound.args, **bound.kwargs)
    updated = ((name, arguments[name]) for name in kernel.updates if arguments.get(name) is not None)
    if isinstance(result, tuple):
        return (*((f"result[{index}]", member) for index, member in enumerate(result)), *updated)
    return (("result", result), *updated)


def run(function: Function, case: Case) -> Results:
    """Call `function` with copies of the arguments of `case`; the labelled results.

    An error, or a change to an argument that the kernel does not update, is an AssertionError.
    """
    return _run(function, case, case.fresh())


def _run(function: Function, case: Case, arguments: Mapping[str, Any], **extra: Any) -> Results:
    """`call` that lets no error pass and no argument be changed that is not for update."""
    kernel = case.kernel
    outs = _arrays_in(extra.get("out"))
    kept = {
        name: value.copy()
        for name, value in arguments.items()
        if isinstance(value, np.ndarray)
        and name not in kernel.updates
        and not any(value is out for out in outs)
    }
    try:
        results = call(function, kernel, arguments, {**case.options, **extra})
    except Exception as error:
        _fail(function, case, f"raised {type(error).__name__}: {error}", error)
    for name, value in kept.items():
        if arguments[name].tobytes() != value.tobytes():
            _fail(function, case, f"changed its argument {name}")
    return results


def _arrays_in(value: Any) -> list[Array]:
    """The array that a value is, or those that are members of a tuple."""
    return [one for one in (value if isinstance(value, tuple) else (value,)) if _is_array(one)]


def _fail(function: Function, case: Case, problem: str, cause: BaseException | None = None) -> NoReturn:
    module = getattr(function, "__module__", "?")
    raise AssertionError(f"{case.kernel.name} of {module}: {problem} [{case.id}]") from cause


# ----------------------------------------------------------------------------------------------------
# Parity


def check_parity(function: Function, case: Case) -> None:
    """The definition's values in float64 within the promised error, its shapes, and the promoted dtype."""
    results = run(function, case)
    _compare(function, case, results, case.expected, case.arguments)
    for (label, result), (_, value, _) in zip(results, case.expected, strict=True):
        if isinstance(value, np.generic) and not isinstance(result, np.generic):
            _fail(function, case, f"{label} is a {type(result).__name__}; expected a NumPy scalar")


def _expect(
    case: Case, changed: Mapping[str, Any] | None = None, *, sensitive: bool = False
) -> tuple[Expected, ...]:
    """The definition's results in float64, each with the scale of its error.

    The contract's promise is for arguments like the example's; that of a gradient scales with those given. Where
    `changed` arguments may cancel each other, a `sensitive` result may also be as far off as the change that
    their last digits make.
    """
    kernel, options = case.kernel, case.options
    exact = {
        name: np.array(value, np.float64) if name in case.floats or _is_float(value) else value
        for name, value in (changed or case.arguments).items()
    }
    gradients = [exact[name] for name in gradients_of(kernel) if name in exact]
    floor = kernel.floor * max((_largest(gradient) for gradient in gradients), default=1.0)

    def scale_of(label: str, value: Any) -> Any:
        scale = np.fmax(np.abs(value), floor)
        for change in changes:
            scale = np.fmax(scale, change[label])
        return scale

    changes = []
    if kernel.conditioned:
        absolute = {name: np.abs(value) if _is_float(value) else value for name, value in exact.items()}
        linear = {"activation": None} if "activation" in kernel.signature.parameters else {}
        changes.append(dict(call(kernel.definition, kernel, absolute, {**options, **linear})))
    if sensitive:
        changes.append(_sensitivity(kernel, exact, options))
    fresh = {name: np.copy(value) if _is_array(value) else value for name, value in exact.items()}
    results = call(kernel.definition, kernel, fresh, options)
    return tuple(
        Expected(label, value, None if value is None else scale_of(label, value)) for label, value in results
    )


def _largest(values: Any) -> float:
    """The largest finite magnitude among these, at least 1."""
    return float(np.max(np.abs(values), initial=1.0, where=np.isfinite(values)))


def _sensitivity(kernel: Kernel, exact: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """How much the results change, relative to a small relative change of each element of each argument."""
    small = 2.0**-30
    rng = np.random.default_rng(0)

    def results_of(changed: str = "") -> Results:
        given = {name: np.copy(value) if _is_array(value) else value for name, value in exact.items()}
        if changed:
            given[changed] *= 1 + small * rng.choice((-1, 1), np.shape(given[changed]))
        return call(kernel.definition, kernel, given, options)

    before = results_of()
    sensitivity: dict[str, Any] = {label: 0.0 for label, _ in before}
    for name in [name for name, value in exact.items() if _is_float(value)]:
        for (label, old), (_, new) in zip(before, results_of(name), strict=True):
            if old is not None:
                sensitivity[label] = sensitivity[label] + np.nan_to_num(np.abs(new - old) / small, posinf=0)
    return sensitivity


def _compare(
    function: Function,
    case: Case,
    results: Results,
    expected: tuple[Expected, ...],
    arguments: Mapping[str, Any],
) -> None:
    """AssertionError where results are not as expected for `arguments`."""
    labels = [label for label, _ in results]
    if labels != [label for label, _, _ in expected]:
        _fail(function, case, f"returned {labels}; expected {[label for label, _, _ in expected]}")
    dtype = _result_dtype(case, arguments)
    for (label, result), (_, value, scale) in zip(results, expected, strict=True):
        problem = _difference(case.kernel, label, result, value, scale, dtype)
        if problem:
            _fail(function, case, f"{label} {problem}")


def _result_dtype(case: Case, arguments: Mapping[str, Any]) -> np.dtype[Any]:
    """NumPy's promotion of the arguments that are real numbers, integers counted as float64.

    A Python number has no say beside arrays.
    """
    values = [arguments[name] for name in case.floats if name in arguments]
    arrays = [value for value in values if not isinstance(value, (bool, int, float))]
    dtypes = [np.asarray(value).dtype for value in arrays or values]
    return np.result_type(*(dtype if dtype.kind == "f" else FLOAT64 for dtype in dtypes)).newbyteorder("=")


def _difference(kernel: Kernel, label: str, result: Any, value: Any, scale: Any, dtype: np.dtype[Any]) -> str:
    """What is wrong with `result`; empty where it is right."""
    if value is None or result is None:
        return "" if value is result else f"is {result!r}; expected {value!r}"
    if label in kernel.updates:
        dtype = result.dtype.newbyteorder("=")
    elif type(result) is not np.ndarray and not isinstance(value, np.generic):
        return f"is a {type(result).__name__}; expected an ndarray"
    elif value.dtype.kind == "f" and result.dtype != dtype:
        return f"has dtype {result.dtype}; expected {dtype}"
    elif value.dtype.kind != "f" and result.dtype != value.dtype:
        return f"has dtype {result.dtype}; expected {value.dtype}"
    if result.shape != value.shape:
        return f"has shape {result.shape}; expected {value.shape}"
    if value.dtype.kind != "f":
        wrong = result != value
        error = "not exactly equal"
    else:
        wrong, error = _wrong_values(kernel, result, value, scale, dtype)
    if not np.any(wrong):
        return ""
    where = np.unravel_index(np.argmax(wrong), result.shape)
    at = f" at {tuple(map(int, where))}" if result.shape else ""
    return (
        f"is {result[where]!r}{at}; expected {value[where]!r}, {error}"
        f" ({np.count_nonzero(wrong)} of {result.size} wrong)"
    )


def _wrong_values(
    kernel: Kernel, result: Any, value: Any, scale: Any, dtype: np.dtype[Any]
) -> tuple[NDArray[np.bool_], str]:
    """Where `result` is further from `value` than promised, and the promise in words."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = value.astype(dtype)
    different: NDArray[np.bool_] = (result != rounded) & ~(np.isnan(result) & np.isnan(rounded))
    if kernel.ulp == 0 or not np.any(different):
        return different, "exactly"
    compute = max(dtype, FLOAT32)
    limits = np.finfo(compute)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        bound = kernel.ulp * limits.eps * scale + limits.tiny
        if dtype == FLOAT16:  # computed in float32, then rounded once more
            bound = bound + np.finfo(FLOAT16).eps * np.abs(value) + np.finfo(FLOAT16).smallest_subnormal
        far = ~(np.abs(result.astype(FLOAT64) - value) <= bound)
    finite = np.isfinite(result) & np.isfinite(rounded)
    allowed = f"within {kernel.ulp:g} eps of {compute}"
    return different & (far | ~finite), allowed


# ----------------------------------------------------------------------------------------------------
# Gradients


def check_gradient(function: Function, case: Case) -> None:
    """A derivative, backward or with_grad kernel against central differences of the forward definition."""
    kernel, forward = case.kernel, case.kernel.forward
    if forward is None or case.dtype != FLOAT64:
        raise ValueError(f"{case.id} is not a case of a derivative in float64")
    gradients = [value for _, value in run(function, case)]
    if kernel.with_grad_of:
        loss = forward.definition(**case.forward_arguments, **case.forward_options)
        _assert_near(function, case, "result[0], the value of the forward kernel,", gradients.pop(0), loss)
    names = [name for name in forward.signature.parameters if name in case.differences]
    if len(gradients) > len(names):
        _fail(function, case, f"returned {len(gradients)} gradients for the arguments {names}")
    for name, gradient in zip(names, gradients, strict=False):
        if gradient is not None:
            _assert_near(function, case, f"gradient of {name}", gradient, case.differences[name])


def _assert_near(function: Function, case: Case, label: str, result: Any, expected: Any) -> None:
    if np.shape(result) != np.shape(expected):
        _fail(function, case, f"{label} has shape {np.shape(result)}; expected {np.shape(expected)}")
    scale = max(1.0, float(np.max(np.abs(expected), initial=0)))
    error = np.abs(result - expected)
    if np.any(~(error <= GRADIENT_TOLERANCE * scale)):
        where = np.unravel_index(np.argmax(error), np.shape(expected))
        at = tuple(map(int, where))
        _fail(function, case, f"{label} is {result[at]!r} at {at}; central differences give {expected[at]!r}")


def _central_differences(case: Case) -> dict[str, Array]:
    kernel, forward = case.kernel, case.kernel.forward
    assert forward is not None
    names = [name for name, value in case.forward_arguments.items() if _is_float(value)]
    arguments = {**case.forward_arguments, **{name: case.forward_arguments[name].copy() for name in names}}

    def evaluate() -> dict[str, Any]:
        result = forward.definition(**arguments, **case.forward_options)
        return dict(zip(forward.results, result if isinstance(result, tuple) else (result,), strict=False))

    if kernel.derivative_of:  # element by element, so all elements can move at once
        (name,) = names
        x = arguments[name]
        arguments[name] = x + STEP
        above = evaluate()["y"]
        arguments[name] = x - STEP
        return {name: (above - evaluate()["y"]) / (2 * STEP)}

    given = {
        result: case.arguments[name]
        for name, result in gradients_of(kernel).items()
        if name in case.arguments
    }
    weights = given or {forward.results[0]: 1.0}

    def slopes(array: Array) -> Array:
        result = np.empty(array.shape)
        for index, value in np.ndenumerate(array):
            array[index] = value + STEP
            above = evaluate()
            array[index] = value - STEP
            below = evaluate()
            changes = [
                weight * ((above[name] - below[name]) / (2 * STEP)) for name, weight in weights.items()
            ]
            result[index] = sum(map(np.sum, changes))
            array[index] = value
        return result

    return {name: slopes(arguments[name]) for name in names}


# ----------------------------------------------------------------------------------------------------
# Outputs

_GUARD_BYTE = 0xA5
_GUARD_ELEMENTS = 16


class Guarded:
    """An array in the middle of a buffer whose other bytes must never change."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], layout: str = "contiguous") -> None:
        step = 2 if layout == "strided" else 1
        margin = _GUARD_ELEMENTS * dtype.itemsize + (1 if layout == "unaligned" else 0)
        strides = _strides(shape, step * dtype.itemsize, fortran=layout == "fortran")
        length = 2 * margin + step * dtype.itemsize * int(np.prod(shape))
        self._buffer = np.full(length, _GUARD_BYTE, np.uint8)
        if layout == "byte-swapped":
            dtype = dtype.newbyteorder()
        self.array: Array = np.ndarray(shape, dtype, self._buffer, margin, strides)

    def is_intact(self) -> bool:
        """Whether no byte outside the array has changed; the array itself is lost by the look."""
        self.array[...] = np.frombuffer(bytes([_GUARD_BYTE]) * self.array.itemsize, self.array.dtype)[0]
        return bool(np.all(self._buffer == _GUARD_BYTE))


def _strides(shape: tuple[int, ...], step: int, *, fortran: bool) -> tuple[int, ...]:
    lengths = shape if fortran else shape[::-1]
    strides = []
    for length in lengths:
        strides.append(step)
        step *= max(length, 1)
    return tuple(strides if fortran else strides[::-1])


OUT_LAYOUTS = ("contiguous", "strided", "fortran", "unaligned", "byte-swapped")


def check_out(function: Function, case: Case) -> None:
    """`out` is returned, wholly overwritten and nothing beside it; in-place arguments likewise.

    An argument given as `out` is refused where the definition refuses it, and else gives the right values.
    """
    for layout in OUT_LAYOUTS:
        if case.kernel.updates:
            _check_in_place(function, case, layout)
        if case.kernel.has_out:
            _check_guarded_out(function, case, layout)
    for place in out_places(case):
        for name in case.arrays:
            _check_alias(function, case, place, name)


def _check_guarded_out(function: Function, case: Case, layout: str) -> None:
    dtype = _result_dtype(case, case.arguments)
    seen: list[list[bytes]] = []
    guards = {place: Guarded(_out_shape(case, place), dtype, layout) for place in out_places(case)}
    for poison in (np.nan, 12345.0):
        for guarded in guards.values():
            guarded.array[...] = poison
        arrays = {place: guarded.array for place, guarded in guards.items()}
        results = _run(function, case, case.fresh(), out=as_out(case, arrays))
        if any(results[place][1] is not array for place, array in arrays.items()):
            _fail(function, case, f"did not return out ({layout})")
        _compare(function, case, _in_native_order(results), case.expected, case.arguments)
        seen.append([array.tobytes() for array in arrays.values()])
        if not all(guarded.is_intact() for guarded in guards.values()):
            _fail(function, case, f"wrote beside out ({layout})")
    if seen[0] != seen[1]:
        _fail(function, case, f"gave different values for different former contents of out ({layout})")


def out_places(case: Case) -> tuple[int, ...]:
    """Which results can go to `out`: where it is a tuple those there are, of value and gradient the gradient."""
    if case.kernel.has_outs:
        return tuple(place for place, one in enumerate(case.expected) if one.value is not None)
    return (1 if case.kernel.with_grad_of else 0,) if case.kernel.has_out else ()


def as_out(case: Case, arrays: Mapping[int, Any]) -> Any:
    """What `out` is where the results in these places go to these arrays."""
    if case.kernel.has_outs:
        return tuple(arrays.get(place) for place in range(len(case.expected)))
    (array,) = arrays.values()
    return array


def _out_shape(case: Case, place: int) -> tuple[int, ...]:
    shape: tuple[int, ...] = case.expected[place].value.shape
    return shape


def _in_native_order(results: Results) -> Results:
    return tuple(
        (label, value.astype(value.dtype.newbyteorder("=")) if _is_array(value) else value)
        for label, value in results
    )


def _check_in_place(function: Function, case: Case, layout: str) -> None:
    arguments = case.fresh()
    guards = {}
    for name in case.kernel.updates:
        if name in arguments:
            guards[name] = Guarded(arguments[name].shape, arguments[name].dtype, layout)
            guards[name].array[...] = arguments[name]
            arguments[name] = guards[name].array
    _compare(function, case, _run(function, case, arguments), case.expected, case.arguments)
    for name, guard in guards.items():
        if not guard.is_intact():
            _fail(function, case, f"wrote beside {name} ({layout})")


def _check_alias(function: Function, case: Case, place: int, name: str) -> None:
    """`out` is the argument `name` itself."""
    value = case.arguments[name]
    if value.shape != _out_shape(case, place) or value.dtype != _result_dtype(case, case.arguments):
        return
    law, mine = case.fresh(), case.fresh()
    of_law, out = as_out(case, {place: law[name]}), as_out(case, {place: mine[name]})
    refused = _error_of(case.kernel.definition, case, law, {**case.options, "out": of_law})
    if refused is None:
        _compare(function, case, _run(function, case, mine, out=out), case.expected, case.arguments)
        return
    bad = BadCall(f"out is {name}", mine, {**case.options, "out": out}, names=("out",))
    error = _error_of(function, case, bad.arguments, bad.options)
    _check_refusal(function, case, bad, error, (type(refused),))
    if mine[name].tobytes() != value.tobytes():
        _fail(function, case, f"wrote to out, which is {name}, before it refused it")


# ----------------------------------------------------------------------------------------------------
# Layouts and dtypes


def _strided(array: Array) -> Array:
    pairs = np.full((*array.shape, 2), 99, array.dtype)
    pairs[..., 0] = array
    return pairs[..., 0]


def _reversed(array: Array) -> Array:
    backwards = (slice(None, None, -1),) * array.ndim
    return array[backwards].copy()[backwards] if array.ndim else array.copy()


def _unaligned(array: Array) -> Array:
    copy: Array = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), 1)
    copy[...] = array
    return copy


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _memory_mapped(array: Array) -> Array:
    if array.size == 0 or array.ndim == 0:
        return array.copy()
    with tempfile.TemporaryFile() as file:
        mapped: Array = np.memmap(file, array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return mapped


#: The same values in other memory.
LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "strided": _strided,
    "fortran": lambda array: np.array(array, order="F"),
    "reversed": _reversed,
    "unaligned": _unaligned,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "memory-mapped": _memory_mapped,
    "read-only": _read_only,
}
#: Numbers in other form: Python's own, half precision, one repeated by a stride of 0.
NUMBERS: dict[str, Callable[[Array], Any]] = {
    "list": lambda array: array.tolist() if array.size else array,  # a list cannot say (0, 3)
    "float16": lambda array: array.astype(np.float16),
    "repeated": lambda array: np.broadcast_to(array[..., :1], array.shape) if array.ndim else array,
}
#: Numbers that count as float64.
INTEGRAL: dict[str, Callable[[Array], Any]] = {
    "int64": lambda array: np.rint(array).astype(np.int64),
    "uint8": lambda array: np.rint(np.abs(array)).astype(np.uint8),
    "bool": lambda array: np.asarray(array > 0.5),
}
#: Other integers for labels and indices.
INTEGERS = (np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64)


def check_layouts(function: Function, case: Case) -> None:
    """Right values from any strides, order, alignment, byte order, number type, and from lists."""
    kernel = case.kernel
    for name, change in LAYOUTS.items():
        changeable = [arg for arg in case.arrays if not (name == "read-only" and arg in kernel.updates)]
        for group in _alone_and_together(changeable):
            check_changed(function, case, name, dict.fromkeys(group, change), case.expected)
    readable = [arg for arg in case.floats if arg not in kernel.updates]
    labels = set(make_case(kernel).arrays) - set(make_case(kernel).floats)
    for name, change in NUMBERS.items():
        check_changed(function, case, name, dict.fromkeys(readable, change))
    for name, change in INTEGRAL.items():
        check_changed(function, case, name, {arg: change for arg in readable if arg not in labels})
    check_changed(function, case, "float16", dict.fromkeys(case.floats, NUMBERS["float16"]))
    for arg in readable[1:] if len(readable) == len(case.floats) else readable:
        _check_dtype(function, case, arg, np.float32 if case.dtype == FLOAT64 else np.float64)
    for arg in set(case.arrays) - set(case.floats):
        check_changed(function, case, "list", {arg: NUMBERS["list"]}, case.expected)
        for integer in INTEGERS:
            if np.max(case.arguments[arg], initial=0) <= np.iinfo(integer).max:
                _check_dtype(function, case, arg, integer)


def _check_dtype(function: Function, case: Case, name: str, dtype: type[np.generic]) -> None:
    check_changed(function, case, dtype.__name__, {name: lambda array: array.astype(dtype)})


def _alone_and_together(names: list[str]) -> list[list[str]]:
    return [names] if len(names) < 2 else [names, *([name] for name in names)]


def check_changed(
    function: Function,
    case: Case,
    what: str,
    changes: Mapping[str, Callable[[Array], Any]],
    expected: tuple[Expected, ...] | None = None,
) -> None:
    """Parity where some arguments are changed; what is expected is kept for the next function."""

    def arguments() -> dict[str, Any]:
        return case.fresh() | {name: change(case.arguments[name]) for name, change in changes.items()}

    changed, given = replace(case, remark=f"{case.remark}{'+'.join(changes)}:{what}"), arguments()
    with np.errstate(all="ignore"):
        results = _run(function, changed, given)
        if expected is not None:
            _compare(function, changed, results, expected, given)
            return
        if changed.remark not in case.known:
            case.known[changed.remark] = _expect(case, arguments())
        _compare_sensitively(function, changed, results, case.known[changed.remark], given, arguments())


def _compare_sensitively(
    function: Function,
    case: Case,
    results: Results,
    expected: tuple[Expected, ...],
    given: Mapping[str, Any],
    original: Mapping[str, Any],
) -> None:
    """`_compare` for arguments that may cancel each other: see `_expect`."""
    try:
        _compare(function, case, results, expected, given)
    except AssertionError:
        _compare(function, case, results, _expect(case, original, sensitive=True), given)


# ----------------------------------------------------------------------------------------------------
# Edges

#: Values at which naive formulas overflow, underflow or cancel.
EXTREMES = (
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 1e-4, -1e-4, 1e-30, -1e-30, 1e-40, -1e-40),
    *(20.0, -20.0, 88.0, -88.0, 89.0, -89.0, 104.0, -104.0, 709.0, -709.0, 710.0, -746.0, 0.5, -0.5, 3.0),
)


def check_edges(function: Function, case: Case) -> None:
    """NaN and infinities where the definition has them, right values where exponentials over- or underflow.

    Each real argument is filled with extreme values, then has one at its start, middle or end.
    """
    for name in case.floats:
        size = case.arguments[name].size
        if size:
            _check_values(function, case, name, "extremes", np.resize(np.array(EXTREMES), size))
        for index in sorted({0, size // 2, size - 1}) if size else ():
            for value in EXTREMES[:3] if index else EXTREMES[:1]:
                values = case.arguments[name].ravel().astype(np.float64)
                values[index] = value
                _check_values(function, case, name, f"{value} at {index}", values)


def _check_values(function: Function, case: Case, name: str, what: str, values: Array) -> None:
    with np.errstate(all="ignore"):
        given = case.arguments[name]
        replaced = values.astype(given.dtype).reshape(given.shape)
    check_changed(function, case, what, {name: lambda _: replaced.copy()})


# ----------------------------------------------------------------------------------------------------
# Errors

ERRORS = (ValueError, TypeError, IndexError)


class BadCall(NamedTuple):
    """A call that should be refused, and by which errors; by none where the definition may accept it."""

    what: str
    arguments: dict[str, Any]
    options: dict[str, Any]
    errors: tuple[type[Exception], ...] = ()
    names: tuple[str, ...] = ()


def check_errors(function: Function, case: Case) -> None:
    """Every bad call raises what the definition raises, naming function and argument, and writes nothing.

    What the definition accepts must be accepted, with its values.
    """
    definition = case.kernel.definition
    with np.errstate(all="ignore"):
        for bad, law in zip(bad_calls(case), bad_calls(case), strict=True):
            refusal = _error_of(definition, case, law.arguments, law.options)
            if refusal is None and not bad.errors:
                _check_accepted(function, case, bad)
                continue
            _check_refusal(definition, case, law, refusal, bad.errors or ERRORS)
            before = _bytes_of(bad)
            error = _error_of(function, case, bad.arguments, bad.options)
            _check_refusal(function, case, bad, error, (type(refusal),))
            if _bytes_of(bad) != before:
                _fail(function, case, f"changed an array before it raised {error!r}: {bad.what}")


def _error_of(
    function: Function, case: Case, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> Exception | None:
    try:
        call(function, case.kernel, arguments, options)
    except Exception as error:
        return error
    return None


def _check_refusal(
    function: Function, case: Case, bad: BadCall, error: Exception | None, errors: tuple[type[Any], ...]
) -> None:
    """The error is of one of these classes and names the function and the argument."""
    if type(error) not in errors:
        expected = " or ".join(one.__name__ for one in errors)
        _fail(function, case, f"raised {error!r}; expected {expected}: {bad.what}", error)
    named = re.match(rf"{case.kernel.name}: (\w+)", str(error))
    names = bad.names or tuple(case.kernel.signature.parameters)
    if named is None or named[1] not in names:
        _fail(
            function, case, f"raised {error!r}, which does not name {' or '.join(names)}: {bad.what}", error
        )


def _check_accepted(function: Function, case: Case, good: BadCall) -> None:
    changed = replace(case, options=good.options, remark=good.what)
    original = {name: np.copy(value) if _is_array(value) else value for name, value in good.arguments.items()}
    results = _run(function, changed, good.arguments)
    if not _is_result_of_other_numbers(case, good):
        expected = _expect(changed, original)
        _compare_sensitively(function, changed, results, expected, good.arguments, original)


def _is_result_of_other_numbers(case: Case, good: BadCall) -> bool:
    """Whether labels have become real numbers, so that another dtype of the result is right."""
    return any(_is_float(case.arguments[name]) != _is_float(good.arguments.get(name)) for name in case.arrays)


def _bytes_of(bad: BadCall) -> list[bytes]:
    arrays = chain.from_iterable(map(_arrays_in, [*bad.arguments.values(), *bad.options.values()]))
    return [array.tobytes() for array in arrays if array.dtype != object]


def bad_calls(case: Case) -> Iterator[BadCall]:
    """Ways to call a kernel wrongly that follow from its signature; new arrays each time."""
    for name in case.arrays:
        yield from _bad_dtypes(case, name)
        yield from _other_shapes(case, name)
        if name not in case.floats:
            yield from _bad_labels(case, name)
    yield from _other_ranks(case)
    yield from _bad_options(case)
    for place in out_places(case):
        yield from _bad_outs(case, place)
    if case.kernel.has_outs:
        yield from _bad_tuples_of_outs(case)
    for name in case.kernel.updates:
        if name in case.arguments:
            yield from _bad_in_place(case, name)


def _with(case: Case, what: str, name: str, value: Any, *errors: type[Exception]) -> BadCall:
    """The call of `case` with another value of the argument or option `name`."""
    arguments, options = case.fresh(), dict(case.options)
    (arguments if name in arguments else options)[name] = value
    return BadCall(f"{name} {what}", arguments, options, errors, (name,) if errors else ())


def _bad_dtypes(case: Case, name: str) -> Iterator[BadCall]:
    array = case.arguments[name]
    ones = np.ones(array.shape)
    yield _with(case, "of complex numbers", name, ones.astype(complex), TypeError)
    yield _with(case, "of objects", name, ones.astype(object), TypeError)
    yield _with(case, "of strings", name, ones.astype(str), TypeError)
    yield _with(case, "of dates", name, ones.astype("datetime64[s]"), TypeError)
    yield _with(case, "masked", name, np.ma.masked_array(array), TypeError)
    yield _with(case, "not an array", name, {"not": "an array"}, TypeError)
    if case.kernel.signature.parameters[name].default is not None:
        yield _with(case, "missing", name, None, TypeError)
    if name not in case.kernel.updates:
        yield _with(case, "ragged", name, [[1.0, 2.0], [3.0]], ValueError)
    if array.dtype.kind == "f" and np.dtype(np.longdouble).itemsize > 8:
        yield _with(case, "of long doubles", name, array.astype(np.longdouble), TypeError)


def _other_shapes(case: Case, name: str) -> Iterator[BadCall]:
    array = case.arguments[name]
    yield _with(case, "with one axis more", name, array[np.newaxis].copy())
    yield _with(case, "with two axes more", name, array[np.newaxis, np.newaxis].copy())
    yield _with(case, "of rank 0", name, np.zeros((), array.dtype))
    for axis, length in enumerate(array.shape):
        yield _with(case, f"longer along axis {axis}", name, np.repeat(array, 2, axis))
        if length > 1:
            yield _with(case, f"of length 1 along axis {axis}", name, np.take(array, [0], axis))
            yield _with(case, f"shorter along axis {axis}", name, np.delete(array, 0, axis))
            yield _with(case, f"without axis {axis}", name, np.take(array, 0, axis))
        if length > 0:
            yield _with(case, f"empty along axis {axis}", name, np.take(array, [], axis))


def _other_ranks(case: Case) -> Iterator[BadCall]:
    """All arrays at once; element-wise kernels, for one, take any rank."""
    changes: dict[str, Callable[[Array], Array]] = {
        "rank 0": lambda array: array.ravel()[:1].reshape(()),
        "an axis more in front": lambda array: array[np.newaxis],
        "an axis more behind": lambda array: array[..., np.newaxis],
        "an axis less": lambda array: array[0] if array.ndim else array,
    }
    for what, change in changes.items():
        if all(case.arguments[name].size for name in case.arrays):
            arguments = {name: change(case.arguments[name]).copy() for name in case.arrays}
            yield BadCall(f"every array with {what}", case.fresh() | arguments, dict(case.options))


def _bad_labels(case: Case, name: str) -> Iterator[BadCall]:
    labels = case.arguments[name]
    yield _with(case, "of booleans", name, labels.astype(bool), TypeError)
    yield _with(case, "of floats", name, labels.astype(case.dtype))
    for index in sorted({0, labels.size - 1} if labels.size else ()):
        for value in (-1, -(2**40), 2**40, np.iinfo(labels.dtype).min, np.iinfo(labels.dtype).max):
            wrong = labels.copy()
            wrong.flat[index] = value
            yield _with(case, f"with {value} at {index}", name, wrong, IndexError)


#: What is no value of any option.
_NONSENSE: tuple[Any, ...] = (object(), "nonsense", b"", np.zeros(3), ...)
# fmt: off
#: What may or may not be one.
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 2**31, 2**62, -(2**70), 10**400, 0.5, -0.5, 1.5, np.nan, np.inf, -np.inf, 1j,
    "", "1", (), (1,), (1, 1), (0, 0), (-1, 1), (1, 2, 3), (True, 1, 1), (1.5, 1.5), (None, None), ("1", "1"),
    ((1, 1), (0, 2)), ((1, -1), (0, 0)), ((1, 1),), [], [1, 1], {}, np.float32(0.5), np.int8(1), np.zeros(()),
)
# fmt: on


def _bad_options(case: Case) -> Iterator[BadCall]:
    for name in case.kernel.signature.parameters:
        if name not in case.arrays and name != "out":
            for value in _NONSENSE:
                yield _with(case, f"is {value!r}", name, value, *ERRORS)
            for value in _ODD:
                yield _with(case, f"is {value!r}", name, value)


def _bad_outs(case: Case, place: int) -> Iterator[BadCall]:
    shape, dtype = _out_shape(case, place), _result_dtype(case, case.arguments)
    other = FLOAT32 if dtype == FLOAT64 else FLOAT64
    longer = (*shape[:-1], shape[-1] + 1) if shape else (1,)

    def bad(what: str, out: Any, error: type[Exception]) -> BadCall:
        return _with(case, what, "out", as_out(case, {place: out}), error)

    yield bad("a list", np.zeros(shape).tolist(), TypeError)
    yield bad("masked", np.ma.zeros(shape, dtype), TypeError)
    yield bad("a number", 0.0, TypeError)
    yield bad("with an axis more", np.zeros((1, *shape), dtype), ValueError)
    yield bad("too long", np.zeros(longer, dtype), ValueError)
    yield bad("of another dtype", np.zeros(shape, other), ValueError)
    yield bad("of integers", np.zeros(shape, np.int64), ValueError)
    yield bad("of complex numbers", np.zeros(shape, np.complex128), ValueError)
    yield bad("read-only", _read_only(np.zeros(shape, dtype)), ValueError)
    if np.prod(shape) > 1:
        yield bad("repeating one element", _repeating(np.zeros(shape, dtype)), ValueError)
        for name in case.arrays:
            if case.arguments[name].nbytes > dtype.itemsize:
                yield _overlapping_out(case, place, name, dtype)


def _bad_tuples_of_outs(case: Case) -> Iterator[BadCall]:
    """An `out` without the right places, with one for a result that there is not, and with two that overlap."""
    dtype, places = _result_dtype(case, case.arguments), out_places(case)

    def new(place: int) -> Array:
        return np.zeros(_out_shape(case, place), dtype)

    yield _with(case, "an array", "out", new(places[0]), TypeError)
    yield _with(case, "a list", "out", [None] * len(case.expected), TypeError)
    yield _with(case, "empty", "out", (), ValueError)
    yield _with(case, "too long", "out", (*as_out(case, {places[0]: new(places[0])}), None), ValueError)
    for absent in set(range(len(case.expected))) - set(places):
        out = as_out(case, {place: new(place) for place in places} | {absent: new(places[0])})
        yield _with(case, "for what is not needed", "out", out, ValueError)
    for first, second in combinations(places, 2):
        shapes = _out_shape(case, first), _out_shape(case, second)
        if all(map(math.prod, shapes)):
            memory = np.zeros(max(map(math.prod, shapes)), dtype)
            pair = [memory[: math.prod(shape)].reshape(shape) for shape in shapes]
            out = as_out(case, dict(zip((first, second), pair, strict=True)))
            yield _with(case, f"{second} in the memory of {first}", "out", out, ValueError)


def _repeating(array: Array) -> Array:
    return np.lib.stride_tricks.as_strided(array, strides=(0,) * array.ndim)


def _overlapping_out(case: Case, place: int, name: str, dtype: np.dtype[Any]) -> BadCall:
    """`out` begins one element behind the argument."""
    shape = _out_shape(case, place)
    value, length = case.arguments[name], dtype.itemsize * int(np.prod(shape))
    memory = np.zeros(max(value.nbytes, length) + dtype.itemsize, np.uint8)
    out: Array = np.ndarray(shape, dtype, memory, dtype.itemsize)
    bad = _with(case, f"one element behind {name}", "out", as_out(case, {place: out}), ValueError)
    bad.arguments[name] = np.ndarray(value.shape, value.dtype, memory)
    bad.arguments[name][...] = value
    return bad


def _bad_in_place(case: Case, name: str) -> Iterator[BadCall]:
    value = case.arguments[name]
    yield _with(case, "a list", name, value.tolist(), TypeError)
    yield _with(case, "of integers", name, value.astype(np.int64), TypeError)
    yield _with(case, "read-only", name, _read_only(value), ValueError)
    if name != case.kernel.updates[0]:
        other_dtype = FLOAT32 if value.dtype == FLOAT64 else FLOAT64
        yield _with(case, "of another dtype", name, value.astype(other_dtype), TypeError)
    if value.size > 1:
        yield _with(case, "repeating one element", name, _repeating(value.copy()), ValueError)
        for other in case.arrays:
            if other != name:
                bad = _with(case, f"the memory of {other}", name, None, ValueError)
                bad.arguments[name] = bad.arguments[other]
                yield bad._replace(names=(name, other))


# ----------------------------------------------------------------------------------------------------
# All of it

#: Every check that applies to a single case.
CHECKS = (check_parity, check_out, check_layouts, check_edges, check_errors)


def gradient_cases(kernel: Kernel) -> list[Case]:
    """Small cases in float64, away from kinks, one for each value of each option."""
    tried = [{name: value} for name, values in options_of(kernel).items() for value in values]
    sizes = dict(zip(make_case(kernel).sizes, cycle((2, 3)), strict=False))
    return [make_case(kernel, smooth=True, sizes=sizes, options=options) for options in [{}, *tried]]


def check_kernel(function: Function, kernel: Kernel, dtypes: Iterable[DTypeLike] = (FLOAT32, FLOAT64)) -> int:
    """Hold `function` to everything that is promised of `kernel`; the number of cases."""
    count = 0
    for dtype in dtypes:
        grid = cases(kernel, dtype)
        for case in grid:
            check_parity(function, case)
        for check in CHECKS[1:]:
            check(function, grid[0])
        count += len(grid) + len(CHECKS) - 1
    for case in gradient_cases(kernel) if kernel.forward else ():
        check_gradient(function, case)
        count += 1
    return count
