"""Parameters and their gradients: views into flat buffers, so that an optimizer step is one call of a kernel.

Beside them stand buffers, which are kept and saved but not learnt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.init import Initializer, RandomState

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Flat:
    """Parameters one after the other in one array, and their gradients in another."""

    data: Array
    grad: Array


class Parameter:
    """An array that is learnt, `data`, and the gradient of the loss for it, `grad`.

    Both are views into flat buffers that the parameters of a network share. Memory is taken, and first values are
    drawn, when they are first asked for: a description of a network costs nothing.

    Where `has_fans`, by default with two axes or more, `Layer.initialize` may draw them by another initialiser.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        initializer: Initializer,
        *,
        has_fans: bool | None = None,
    ) -> None:
        self.shape = shape
        self.has_fans = len(shape) > 1 if has_fans is None else has_fans
        self.size = math.prod(shape)
        self.dtype = np.dtype(dtype)
        self.initializer = initializer
        self.flat: Flat | None = None
        self.offset = 0
        self._is_forgotten = False
        self._data: Array
        self._grad: Array

    @property
    def data(self) -> Array:
        """The values, in `shape`."""
        if not self.flat:
            gather([self])
        return self._data

    @property
    def grad(self) -> Array:
        """The gradient, in `shape`; `backward` adds to it."""
        if not self.flat:
            gather([self])
        self.settle()
        return self._grad

    def settle(self) -> None:
        """Write the zeros that `zero_grad` has promised."""
        if self._is_forgotten:
            self._grad.fill(0)
            self._is_forgotten = False

    @property
    def room(self) -> Array | None:
        """Where a kernel can write the first gradient after `zero_grad`, for `add_grad`; None for a later one."""
        return self._grad if self._is_forgotten else None

    def add_grad(self, grad: Array) -> None:
        """Add to the gradient; the first one after `zero_grad` takes the place of the old one in the same pass."""
        if self._is_forgotten:
            if grad is not self._grad:
                self._grad[...] = grad
            self._is_forgotten = False
        else:
            self.grad[...] += grad

    def zero_grad(self) -> None:
        """Have the gradient be 0 when it is next looked at, or added to."""
        self._is_forgotten = self.flat is not None

    def initialize(self, random_state: RandomState = None) -> None:
        """Draw new values."""
        self.data[...] = self.initializer(self.shape, random_state)

    def move(self, flat: Flat, offset: int) -> None:
        """Live in `flat` from `offset` on, with the values and the gradient of before."""
        here = slice(offset, offset + self.size)
        data, grad = flat.data[here].reshape(self.shape), flat.grad[here].reshape(self.shape)
        if self.flat:
            data[...], grad[...] = self._data, self.grad
        self._data, self._grad = data, grad
        self.flat, self.offset = flat, offset

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


class Buffer:
    """An array that a layer keeps in training without learning it, `data`: running statistics, for example.

    Optimizers know nothing of it; else it goes where parameters go. It takes memory when it is first asked for.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, value: float) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._value = value

    @cached_property
    def data(self) -> Array:
        """The values, in `shape`."""
        return np.full(self.shape, self._value, self.dtype)

    def reset(self) -> None:
        """Begin anew."""
        self.data.fill(self._value)

    def __repr__(self) -> str:
        return f"Buffer(shape={self.shape}, dtype={self.dtype})"


def gather(parameters: Iterable[Parameter], *, draw: bool = True) -> None:
    """Have parameters lie together in one flat buffer per dtype; those without memory yet draw first values."""
    for dtype, group in _by_dtype(parameters).items():
        if all(one.flat for one in group) and len(list(_flats(group))) == 1:
            continue
        size = sum(parameter.size for parameter in group)
        flat = Flat(np.empty(size, dtype), np.zeros(size, dtype))
        offset = 0
        for parameter in group:
            is_new = parameter.flat is None
            parameter.move(flat, offset)
            offset += parameter.size
            if is_new and draw:
                parameter.initialize()


def _by_dtype(parameters: Iterable[Parameter]) -> dict[np.dtype[Any], list[Parameter]]:
    groups: dict[np.dtype[Any], list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    return groups


class Parameters(Sequence[Parameter]):
    """Some parameters, and `flats`: the fewest buffers that hold them and nothing else.

    The parameters of a network are one buffer per dtype.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._parameters = tuple(parameters)
        gather(one for one in self._parameters if one.flat is None)
        self._homes = [one.flat for one in self._parameters]
        self._flats = tuple(_flats(self._parameters))

    @property
    def flats(self) -> tuple[Flat, ...]:
        """The buffers, one for each run of neighbours."""
        for one in self._parameters:
            one.settle()
        return self._flats

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return sum(parameter.size for parameter in self)

    @property
    def have_moved(self) -> bool:
        """Whether a network that was built around them has taken them into buffers of its own."""
        return [one.flat for one in self._parameters] != self._homes

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        for one in self._parameters:
            one.zero_grad()

    @overload
    def __getitem__(self, index: int) -> Parameter: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Parameter]: ...
    def __getitem__(self, index: int | slice) -> Parameter | Sequence[Parameter]:
        return self._parameters[index]

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        return f"<{len(self)} parameters of {self.size} numbers>"


def _flats(parameters: Iterable[Parameter]) -> Iterator[Flat]:
    """The memory of parameters, each run of neighbours in one piece."""
    runs: list[list[Parameter]] = []
    for one in parameters:
        before = runs[-1][-1] if runs else None
        if before and before.flat is one.flat and before.offset + before.size == one.offset:
            runs[-1].append(one)
        else:
            runs.append([one])
    for first, last in ((run[0], run[-1]) for run in runs):
        assert first.flat is not None
        here = slice(first.offset, last.offset + last.size)
        yield Flat(first.flat.data[here], first.flat.grad[here])
