"""Initialisers: how the weights of a network begin.

An initialiser is a function `(shape, random_state=None)` that returns a float64 array; layers cast it to their own
dtype. Shapes are those of weights, [out, in] or [out, in, height, width]: with t taps, fan_in = in t numbers go
into a unit and fan_out = out t come from one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RandomState: TypeAlias = "int | np.random.Generator | None"
Initializer = Callable[..., Array]

__all__ = ["he_normal", "he_uniform", "normal", "ones", "uniform", "xavier_normal", "xavier_uniform", "zeros"]


def normal(std: float = 1.0) -> Initializer:
    """The initialiser that draws from N(0, std^2)."""

    def draw(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
        return std * np.random.default_rng(random_state).standard_normal(shape)

    return draw


def uniform(bound: float = 1.0) -> Initializer:
    """The initialiser that draws evenly from -bound to bound."""

    def draw(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
        return np.random.default_rng(random_state).uniform(-bound, bound, shape)

    return draw


def zeros(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Nothing but zeros, which is how biases begin."""
    return np.zeros(shape)


def ones(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Nothing but ones, which is how the weights of normalisations begin."""
    return np.ones(shape)


def xavier_normal(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Normal with std sqrt(2 / (fan_in + fan_out)), for tanh and other functions of slope 1 at 0.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """
    return normal(math.sqrt(2 / _fans(shape, both=True)))(shape, random_state)


def xavier_uniform(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Uniform with the std of `xavier_normal`."""
    return _uniform(math.sqrt(2 / _fans(shape, both=True)), shape, random_state)


def he_normal(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Normal with std sqrt(2 / fan_in), for rectifiers, which let half of the variance through.

    References
    ----------
    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", ICCV 2015.
    """
    return normal(math.sqrt(2 / _fans(shape)))(shape, random_state)


def he_uniform(shape: tuple[int, ...], random_state: RandomState = None) -> Array:
    """Uniform with the std of `he_normal`; how the weights of `nn` begin."""
    return _uniform(math.sqrt(2 / _fans(shape)), shape, random_state)


def _fans(shape: tuple[int, ...], *, both: bool = False) -> int:
    """fan_in, or fan_in + fan_out; at least 1."""
    if len(shape) < 2:
        raise ValueError(f"init: shape is {shape}; expected that of weights, (out, in, ...)")
    units = shape[0] + shape[1] if both else shape[1]
    return max(units * math.prod(shape[2:]), 1)


def _uniform(std: float, shape: tuple[int, ...], random_state: Any) -> Array:
    return uniform(math.sqrt(3) * std)(shape, random_state)
