"""Checks of dropout and its backward."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output, wrong

_WORD = 2**64


def dropout(
    function: str, p: Any, seed: Any, offset: Any, out: Any, **array: Any
) -> tuple[NDArray[Any], float, int, int, Output]:
    """The plain array, p, seed and offset, and the Output."""
    p, seed, offset = options(function, p, seed, offset)
    x, y = checks.elementwise(function, out, **array)
    return x, p, seed, offset, y


def options(function: str, p: Any, seed: Any, offset: Any) -> tuple[float, int, int]:
    """p from 0 to 1, seed and offset as words of 64 bits."""
    chance = checks.number(function, "p", p, low=0)
    if chance > 1:
        raise wrong(ValueError, function, "p", f"is {p!r}", "a number from 0 to 1")
    seed, offset = (
        checks.integer(function, name, value, low=0, high=_WORD - 1)
        for name, value in (("seed", seed), ("offset", offset))
    )
    return chance, seed, offset


def scrambled(seed: int) -> int:
    """The word from which the counter of this seed starts: seeds that are near are far apart."""
    z = (seed + 0x9E3779B97F4A7C15) % _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % _WORD
    return z ^ (z >> 31)


def threshold(p: float) -> int:
    """What the upper 53 bits of a word must reach for an element to be kept."""
    return math.ceil(p * 2**53)


def scale(p: float) -> float:
    """What a kept element is multiplied by; any number will do where p is 1, which keeps none."""
    return 1 / (1 - p) if p < 1 else 1.0
