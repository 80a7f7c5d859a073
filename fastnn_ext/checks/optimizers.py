"""Checks of the optimizer steps, which write param and the optimizer's state in place.

A step reads `grad` and updates the other arrays. All that can be wrong is found before the first of them is written.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import wrong

Array = NDArray[Any]


def _updated(name: str, grad: Any, **states: Any) -> tuple[Array, checks.Updated]:
    """Plain grad, and the states, param first, once they are found fit to be written."""
    for argument, array in states.items():
        checks.updatable(name, argument, array)
    param = states["param"]
    dtype = param.dtype.newbyteorder("=")
    grad = checks.as_real(name, "grad", grad)
    for argument, array in {**states, "grad": grad}.items():
        if array.shape != param.shape:
            expected = f"shape {param.shape}, as param has"
            raise wrong(ValueError, name, argument, f"has shape {array.shape}", expected)
        if argument != "grad" and array.dtype.newbyteorder("=") != dtype:
            raise wrong(TypeError, name, argument, f"has dtype {array.dtype}", f"dtype {dtype}, as param has")
    for (argument, array), (other, another) in combinations([*states.items(), ("grad", grad)], 2):
        if checks.overlaps(array, another):
            raise wrong(ValueError, name, other, f"shares memory with {argument}", "separate memory")
    compute = checks.compute_dtype(dtype)
    with np.errstate(over="ignore"):
        return checks.plain(grad, compute), checks.Updated(list(states.values()), compute)


def _rate(name: str, argument: str, value: Any) -> float:
    return checks.number(name, argument, value, low=0, finite=True)


def _fraction(name: str, argument: str, value: Any) -> float:
    return checks.number(name, argument, value, low=0, below=1)


def sgd_step(param: Any, grad: Any, lr: Any, weight_decay: Any) -> tuple[Array, checks.Updated, float, float]:
    """Plain grad, the Updated (param), lr and weight_decay."""
    name = "sgd_step"
    rates = _rate(name, "lr", lr), _rate(name, "weight_decay", weight_decay)
    return *_updated(name, grad, param=param), *rates


def momentum_step(
    param: Any, grad: Any, velocity: Any, lr: Any, momentum: Any, nesterov: Any, weight_decay: Any
) -> tuple[Array, checks.Updated, float, float, bool, float]:
    """Plain grad, the Updated (param, velocity), lr, momentum, nesterov and weight_decay."""
    name = "momentum_step"
    lr, momentum = _rate(name, "lr", lr), _rate(name, "momentum", momentum)
    nesterov = checks.boolean(name, "nesterov", nesterov)
    weight_decay = _rate(name, "weight_decay", weight_decay)
    grad, updated = _updated(name, grad, param=param, velocity=velocity)
    return grad, updated, lr, momentum, nesterov, weight_decay


def adagrad_step(
    param: Any, grad: Any, square_sum: Any, lr: Any, eps: Any, weight_decay: Any
) -> tuple[Array, checks.Updated, float, float, float]:
    """Plain grad, the Updated (param, square_sum), lr, eps and weight_decay."""
    name = "adagrad_step"
    rates = _rate(name, "lr", lr), _rate(name, "eps", eps), _rate(name, "weight_decay", weight_decay)
    return *_updated(name, grad, param=param, square_sum=square_sum), *rates


def rmsprop_step(
    param: Any, grad: Any, square_avg: Any, lr: Any, alpha: Any, eps: Any, weight_decay: Any
) -> tuple[Array, checks.Updated, float, float, float, float]:
    """Plain grad, the Updated (param, square_avg), lr, alpha, eps and weight_decay."""
    name = "rmsprop_step"
    lr, alpha = _rate(name, "lr", lr), _fraction(name, "alpha", alpha)
    rates = _rate(name, "eps", eps), _rate(name, "weight_decay", weight_decay)
    return *_updated(name, grad, param=param, square_avg=square_avg), lr, alpha, *rates


class Adam(NamedTuple):
    """The numbers of an Adam step, computed in float64."""

    beta1: float
    beta2: float
    #: lr / (1 - beta1^step)
    rate: float
    #: 1 / sqrt(1 - beta2^step)
    correction: float
    eps: float
    #: weight_decay where it is added to the gradient, else 0.
    decay: float
    #: What param is multiplied by: 1 - lr * weight_decay where the decay is decoupled, else 1.
    shrink: float


def adam_step(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    max_exp_avg_sq: Any,
    step: Any,
    lr: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    weight_decay: Any,
    decoupled: Any,
) -> tuple[Array, checks.Updated, Adam]:
    """Plain grad, the Updated (param, exp_avg, exp_avg_sq, max_exp_avg_sq if given), and the numbers."""
    name = "adam_step"
    step = checks.integer(name, "step", step, low=1, high=2**63 - 1)
    lr, eps = _rate(name, "lr", lr), _rate(name, "eps", eps)
    beta1, beta2 = _fraction(name, "beta1", beta1), _fraction(name, "beta2", beta2)
    weight_decay = _rate(name, "weight_decay", weight_decay)
    decoupled = checks.boolean(name, "decoupled", decoupled)
    states = {"param": param, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    if max_exp_avg_sq is not None:
        states["max_exp_avg_sq"] = max_exp_avg_sq
    grad, updated = _updated(name, grad, **states)
    numbers = Adam(
        beta1=beta1,
        beta2=beta2,
        rate=lr / (1 - beta1**step),
        correction=1 / math.sqrt(1 - beta2**step),
        eps=eps,
        decay=0.0 if decoupled else weight_decay,
        shrink=1 - lr * weight_decay if decoupled else 1.0,
    )
    return grad, updated, numbers
