"""How exact the activations are: the largest error of the public kernels, in units in the last place.

    python benchmarks/vmath_error.py [sigmoid ...] [--dtype float64] [--backend cython] [--points N] [--all]

float32 is compared with the NumPy definition in float64, at a million random points or, with --all, at all 2^32
(several minutes each). float64 is compared with mpmath, at ten thousand points. One half of the points is spread evenly
from -20 to 20, the other over all magnitudes, denormal numbers included.

A unit in the last place (ulp) is the distance of two neighbouring numbers of the dtype at the exact result. The table
holds the largest errors in ulp, and where they were found; those of a kernel that promises less for small results are
in the unit of its promise. An error above the promise is marked.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn._contract import KERNELS, Kernel

Array = NDArray[Any]
Number = Any  # of mpmath, which has no type annotations

BLOCK = 1 << 16  # the arrays of a block stay in the cache
POINTS = {"float32": 1_000_000, "float64": 10_000}
BINARY_DIGITS = 160
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def sigmoid(x: Number) -> Number:
    return 1 / (1 + mp.exp(-x))


def sigmoid_derivative(x: Number) -> Number:
    e = mp.exp(-abs(x))
    return e / (1 + e) ** 2


def softplus(x: Number) -> Number:
    return mp.log1p(mp.exp(x))


def normal_cdf(x: Number) -> Number:
    return mp.erfc(-x / mp.sqrt(2)) / 2


#: What the kernels compute, in mpmath.
FORMULAS: dict[str, Callable[[Number], Number]] = {
    "sigmoid": sigmoid,
    "sigmoid_derivative": sigmoid_derivative,
    "tanh": mp.tanh,
    "tanh_derivative": lambda x: mp.sech(x) ** 2,
    "softplus": softplus,
    "softplus_derivative": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "silu_derivative": lambda x: sigmoid(x) + x * sigmoid_derivative(x),
    "gelu": lambda x: x * normal_cdf(x),
    "gelu_derivative": lambda x: normal_cdf(x) + x * mp.npdf(x),
    "elu": lambda x: x if x > 0 else mp.expm1(x),
    "elu_derivative": lambda x: mp.mpf(1) if x > 0 else mp.exp(x),
    "selu": lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * mp.expm1(x)),
    "selu_derivative": lambda x: SELU_SCALE * (mp.mpf(1) if x > 0 else SELU_ALPHA * mp.exp(x)),
    "mish": lambda x: x * mp.tanh(softplus(x)),
    "mish_derivative": lambda x: mp.tanh(softplus(x)) + x * sigmoid(x) * mp.sech(softplus(x)) ** 2,
}


@dataclass
class Worst:
    """The largest errors seen so far, and where."""

    ulp: float = 0.0
    promised: float = 0.0  # in the unit of the contract
    at: float = math.nan

    def see(self, x: Array, y: Array, exact: Array, difference: Array, floor: float) -> None:
        """Count in results `y` at `x`, given the exact ones in float64 and the absolute differences from them."""
        rounded = exact.astype(y.dtype)
        finite = np.isfinite(rounded) & np.isfinite(y)
        wrong = ~finite & (y != rounded) & ~(np.isnan(y) & np.isnan(exact))
        scale = np.abs(np.where(finite, rounded, 1))
        eps, tiny = np.finfo(y.dtype).eps, np.finfo(y.dtype).smallest_normal
        spacing = eps * np.maximum(scale, floor) if floor else np.spacing(scale)
        ulp = np.where(finite, difference / spacing, np.where(wrong, math.inf, 0.0))
        unit = eps * np.maximum(scale, max(floor, tiny)).astype(np.float64)
        worst = int(np.argmax(ulp))
        if ulp[worst] > self.ulp:
            self.ulp, self.at = float(ulp[worst]), float(x[worst])
        self.promised = max(self.promised, float(np.max(np.where(finite, difference / unit, ulp))))

    def __str__(self) -> str:
        return f"{self.ulp:.2f} at {self.at:.9g}"


def every_float32() -> Iterator[Array]:
    """All float32 numbers, infinities and NaN among them, in blocks."""
    for first in range(0, 1 << 32, BLOCK):
        yield np.arange(first, first + BLOCK, dtype=np.uint64).astype(np.uint32).view(np.float32)


def random_points(dtype: np.dtype[Any], count: int, seed: int) -> Iterator[Array]:
    """`count` numbers in blocks: evenly spread ones, and ones of every magnitude up to 1024 with both signs."""
    rng = np.random.default_rng(seed)
    smallest = math.log2(np.finfo(dtype).smallest_subnormal)
    for first in range(0, count, BLOCK):
        half = min(BLOCK, count - first) // 2 + 1
        magnitudes = np.exp2(rng.uniform(smallest, 10, half)) * rng.choice([-1.0, 1.0], half)
        yield np.concatenate([[0.0, -0.0], rng.uniform(-20, 20, half), magnitudes]).astype(dtype)


def exactly(kernel: Kernel, x: Array) -> Sequence[Number] | Array:
    """The results at x in more digits than x has."""
    if x.dtype == np.float32:
        result: Array = kernel.definition(x.astype(np.float64))
        return result
    return [FORMULAS[kernel.name](mp.mpf(value)) for value in x.tolist()]


def distance(y: Array, exact: Sequence[Number] | Array) -> Array:
    """|y - exact| as a float64 array; subtracted before it is rounded."""
    if isinstance(exact, np.ndarray):
        difference: Array = np.abs(y - exact)
        return difference
    return np.array([float(abs(value - result)) for result, value in zip(y.tolist(), exact, strict=True)])


def compare(kernel: Kernel, backends: Sequence[str], blocks: Iterator[Array]) -> dict[str, Worst]:
    """The errors of each backend over blocks of points."""
    errors = {name: Worst() for name in backends}
    with np.errstate(all="ignore"):
        for x in blocks:
            exact = exactly(kernel, x)
            for name, worst in errors.items():
                y = getattr(fastnn.backend(name), kernel.name)(x)
                worst.see(x, y, np.asarray(exact, dtype=np.float64), distance(y, exact), kernel.floor)
    return errors


def parse() -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("function", nargs="*", help=f"default: all of {', '.join(FORMULAS)}")
    backends = fastnn.available_backends()
    parser.add_argument("--dtype", choices=POINTS, action="append", help="default: both")
    parser.add_argument("--backend", choices=backends, action="append", help="default: all")
    parser.add_argument("--points", type=int, help=f"default: {POINTS}")
    parser.add_argument("--all", action="store_true", help="all 2^32 numbers (float32 only)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if unknown := set(asked.function) - set(FORMULAS):
        parser.error(f"no formula for {', '.join(sorted(unknown))}; known: {', '.join(FORMULAS)}")
    asked.function = asked.function or list(FORMULAS)
    asked.dtype = ["float32"] if asked.all else asked.dtype or list(POINTS)
    asked.backend = asked.backend or backends
    return asked


def main() -> None:
    """Print a table, in Markdown, with a row for each function and dtype."""
    asked = parse()
    mp.mp.prec = BINARY_DIGITS
    print(f"| Kernel | dtype | Promised | {' | '.join(asked.backend)} |")
    print(f"| :-- | :-- | :-- | {' | '.join('--:' for _ in asked.backend)} |")
    for name in asked.function:
        kernel = KERNELS[name]
        promise = f"{kernel.ulp:g} eps of " + (
            f"max(result, {kernel.floor:g})" if kernel.floor else "the result"
        )
        for dtype in asked.dtype:
            points = random_points(np.dtype(dtype), asked.points or POINTS[dtype], asked.seed)
            errors = compare(kernel, asked.backend, every_float32() if asked.all else points)
            cells = [f"{worst}{' (!)' if worst.promised > kernel.ulp else ''}" for worst in errors.values()]
            print(f"| {name} | {dtype} | {promise} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
