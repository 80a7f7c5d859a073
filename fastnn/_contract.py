"""The contract of a kernel: what `@kernel` states on a NumPy definition, and everything else is derived from.

The decorator returns the function unchanged and files it in `KERNELS`. Parity tests, gradient checks, edge and error
cases, benchmarks, the README's table and the report of who stands behind each name all read `KERNELS`; no kernel is
listed anywhere else. This module imports nothing of fastnn.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])


class Draw(Protocol):
    """What an `example` draws its arguments from; `fastnn.testing` has the one that tests and benchmarks use."""

    dtype: np.dtype[Any]

    def size(self, symbol: str, low: int = 0) -> int:
        """The length that stands for `symbol` in this case, at least `low`."""

    def real(self, *shape: int, low: float = -3.0, high: float = 3.0) -> NDArray[Any]:
        """Numbers between `low` and `high`, in the dtype of this case."""

    def labels(self, *shape: int, classes: int) -> NDArray[np.intp]:
        """Integers from 0 to `classes - 1`."""


@dataclass(frozen=True)
class Kernel:
    """One operation: its NumPy definition and what is promised of every version of it.

    Attributes
    ----------
    definition : callable
        The NumPy function: signature, docstring and meaning.
    example : callable
        `example(draw, **options)` gives valid arrays by argument name. Backward kernels and derivatives leave it out:
        their example is that of the forward kernel.
    options : mapping
        The values of each option that tests and benchmarks try, the default first.
    ulp : float
        The largest error allowed, in units of the result dtype's epsilon, against the definition in float64 (for
        float64: against the definition itself).
    conditioned : bool
        Whether that error is relative to the sum of the absolute values of the terms (matrix products, convolutions)
        instead of the result's own value.
    floor : float
        The smallest magnitude that the error is relative to: below it the error is absolute.
    derivative_of, backward_of, with_grad_of : str
        The forward kernel that this one differentiates: f' at each point, the gradient of its arguments, or value and
        gradient at once.
    updates : tuple of str
        The arguments that are written in place.
    results : tuple of str
        What the results are called. A backward kernel takes those that were saved by these names, and the gradients
        with respect to them as `grad_NAME`, that of `y` as `grad_out`. Options named `return_...` decide whether there
        are more than the first.
    kinks : tuple of float
        Points where the function has no derivative; finite differences keep away from them.
    workloads : mapping
        The sizes that benchmarks use, by name: symbol to length, and options by their own names.
    """

    definition: Callable[..., Any]
    example: Callable[..., dict[str, Any]] | None = None
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ulp: float = 4.0
    conditioned: bool = False
    floor: float = 0.0
    derivative_of: str | None = None
    backward_of: str | None = None
    with_grad_of: str | None = None
    updates: tuple[str, ...] = ()
    results: tuple[str, ...] = ("y",)
    kinks: tuple[float, ...] = ()
    workloads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The public name."""
        return self.definition.__name__

    @property
    def family(self) -> str:
        """The stem of the modules that hold this kernel, in every backend."""
        return self.definition.__module__.rpartition(".")[2]

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature that every version has."""
        return inspect.signature(self.definition)

    @property
    def forward(self) -> Kernel | None:
        """The kernel that this one differentiates, if any."""
        name = self.derivative_of or self.backward_of or self.with_grad_of
        return KERNELS[name] if name else None

    @property
    def has_out(self) -> bool:
        """Whether the kernel takes `out=`."""
        return "out" in self.signature.parameters

    @property
    def has_outs(self) -> bool:
        """Whether `out=` is a tuple that has a place for each result, as where `needs` chooses among them."""
        return self.has_out and "needs" in self.signature.parameters


KERNELS: dict[str, Kernel] = {}


def kernel(**contract: Any) -> Callable[[Function], Function]:
    """File the decorated definition in `KERNELS` with its `contract` (the fields of `Kernel`), and export its name."""

    def file(definition: Function) -> Function:
        name = definition.__name__
        if name in KERNELS:
            raise ValueError(
                f"kernel {name!r} is defined twice: {KERNELS[name].definition.__module__} has it too"
            )
        KERNELS[name] = Kernel(definition, **contract)
        exported: list[str] = vars(sys.modules[definition.__module__]).setdefault("__all__", [])
        exported.append(name)
        return definition

    return file


def with_sections(docstring: str | None, sections: dict[str, str]) -> str:
    """A docstring of a summary and notes, with these sections after its summary and the notes last."""
    summary, _, notes = inspect.cleandoc(docstring or "").partition("\n\n")
    notes = "\n\n".join(filter(None, [notes, sections.get("Notes")]))
    sections = {**sections, "Notes": notes} if notes else sections
    text = [summary, *(f"{title}\n{'-' * len(title)}\n{section}" for title, section in sections.items())]
    return "\n\n".join(text)
