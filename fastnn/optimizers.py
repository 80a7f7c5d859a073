"""Optimizer steps: parameters and the optimizer's state, updated in place in one pass.

Each step writes `param` and its state arrays and returns None. These are ndarrays of one shape and one float
dtype, apart from each other and from `grad`; whatever is wrong with an argument is found before anything is
written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn_ext.checks import optimizers as checks

Array = NDArray[Any]

#: A bias, a small layer, a large layer, and a network that no cache holds.
WORKLOADS = {f"n=1e{exponent}": {"n": 10**exponent} for exponent in (0, 4, 6, 7)}
RATES = {"lr": (0.01, 0.5), "weight_decay": (0, 0.1)}
#: Errors are relative to parameters and gradients of order 1: a step can end near zero.
PROMISE = {"ulp": 8, "floor": 1, "workloads": WORKLOADS}


def _numbers(draw: Draw, *names: str) -> dict[str, Array]:
    n = draw.size("n")
    return {name: draw.real(n, low=0 if "sq" in name else -3) for name in names}


def _plus_decay(grad: Array, param: Array, weight_decay: float) -> Array:
    """The gradient of the loss with its penalty weight_decay / 2 |param|^2."""
    return grad + weight_decay * param if weight_decay else grad


@kernel(
    example=lambda draw, **_: _numbers(draw, "param", "grad"), options=RATES, updates=("param",), **PROMISE
)
def sgd_step(param: Array, grad: ArrayLike, *, lr: float, weight_decay: float = 0) -> None:
    """Gradient descent: param -= lr * g, where g = grad + weight_decay * param.

    Parameters
    ----------
    param : ndarray of a float dtype, any shape
        Parameters; written.
    grad : array_like, the shape of param
        Gradient of the loss; cast to the dtype of param.
    lr : float, at least 0
        Learning rate.
    weight_decay : float, at least 0
        Strength of the L2 penalty.

    Raises
    ------
    TypeError
        Where param is not an ndarray of floats, grad is not of real numbers, or an option is no number.
    ValueError
        Where shapes differ, param is read-only or shares memory with grad, or an option is out of range.
    """
    grad, updated, lr, weight_decay = checks.sgd_step(param, grad, lr, weight_decay)
    (param,) = updated.arrays
    param -= lr * _plus_decay(grad, param, weight_decay)
    updated.deliver()


@kernel(
    example=lambda draw, **_: _numbers(draw, "param", "grad", "velocity"),
    options={**RATES, "momentum": (0.9, 0), "nesterov": (False, True)},
    updates=("param", "velocity"),
    **PROMISE,
)
def momentum_step(
    param: Array,
    grad: ArrayLike,
    velocity: Array,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0,
) -> None:
    """Gradient descent with momentum, in PyTorch's convention.

    With g = grad + weight_decay * param: velocity = momentum * velocity + g, then param -= lr * velocity, or
    param -= lr * (g + momentum * velocity) in Nesterov's form.

    Parameters
    ----------
    param : ndarray of a float dtype, any shape
        Parameters; written.
    grad : array_like, the shape of param
        Gradient of the loss; cast to the dtype of param.
    velocity : ndarray, the shape and dtype of param
        State, zero before the first step; written.
    lr : float, at least 0
        Learning rate.
    momentum : float, at least 0
        What is left of the velocity after a step.
    nesterov : bool
        Whether the gradient counts as taken one step ahead.
    weight_decay : float, at least 0
        Strength of the L2 penalty.

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`; also where a state has another dtype or shape than param, or shares memory.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
    ICML 2013.
    """
    grad, updated, lr, momentum, nesterov, weight_decay = checks.momentum_step(
        param, grad, velocity, lr, momentum, nesterov, weight_decay
    )
    param, velocity = updated.arrays
    grad = _plus_decay(grad, param, weight_decay)
    velocity *= momentum
    velocity += grad
    param -= lr * (grad + momentum * velocity) if nesterov else lr * velocity
    updated.deliver()


@kernel(
    example=lambda draw, **_: _numbers(draw, "param", "grad", "square_sum"),
    options={**RATES, "eps": (1e-10, 0.1)},
    updates=("param", "square_sum"),
    **PROMISE,
)
def adagrad_step(
    param: Array,
    grad: ArrayLike,
    square_sum: Array,
    *,
    lr: float,
    eps: float = 1e-10,
    weight_decay: float = 0,
) -> None:
    """Adagrad: each parameter's rate falls with the squares of its past gradients.

    With g = grad + weight_decay * param: square_sum += g^2, then param -= lr * g / (sqrt(square_sum) + eps).

    Parameters
    ----------
    param : ndarray of a float dtype, any shape
        Parameters; written.
    grad : array_like, the shape of param
        Gradient of the loss; cast to the dtype of param.
    square_sum : ndarray, the shape and dtype of param
        State, zero or a small positive number before the first step; written.
    lr : float, at least 0
        Learning rate.
    eps : float, at least 0
        Keeps the divisor from 0.
    weight_decay : float, at least 0
        Strength of the L2 penalty.

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`; also where a state has another dtype or shape than param, or shares memory.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    JMLR 12, 2011.
    """
    grad, updated, lr, eps, weight_decay = checks.adagrad_step(param, grad, square_sum, lr, eps, weight_decay)
    param, square_sum = updated.arrays
    grad = _plus_decay(grad, param, weight_decay)
    square_sum += np.square(grad)
    param -= lr * grad / (np.sqrt(square_sum) + eps)
    updated.deliver()


@kernel(
    example=lambda draw, **_: _numbers(draw, "param", "grad", "square_avg"),
    options={**RATES, "alpha": (0.99, 0.5), "eps": (1e-8, 0.1)},
    updates=("param", "square_avg"),
    **PROMISE,
)
def rmsprop_step(
    param: Array,
    grad: ArrayLike,
    square_avg: Array,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0,
) -> None:
    """RMSprop: gradients are divided by the root of the running average of their squares.

    With g = grad + weight_decay * param: square_avg = alpha * square_avg + (1 - alpha) * g^2, then
    param -= lr * g / (sqrt(square_avg) + eps).

    Parameters
    ----------
    param : ndarray of a float dtype, any shape
        Parameters; written.
    grad : array_like, the shape of param
        Gradient of the loss; cast to the dtype of param.
    square_avg : ndarray, the shape and dtype of param
        State, zero before the first step; written.
    lr : float, at least 0
        Learning rate.
    alpha : float, at least 0 and below 1
        What is left of the average after a step.
    eps : float, at least 0
        Keeps the divisor from 0.
    weight_decay : float, at least 0
        Strength of the L2 penalty.

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`; also where a state has another dtype or shape than param, or shares memory.

    References
    ----------
    Hinton, "Neural Networks for Machine Learning", lecture 6e, Coursera 2012.
    """
    grad, updated, lr, alpha, eps, weight_decay = checks.rmsprop_step(
        param, grad, square_avg, lr, alpha, eps, weight_decay
    )
    param, square_avg = updated.arrays
    grad = _plus_decay(grad, param, weight_decay)
    square_avg *= alpha
    square_avg += (1 - alpha) * np.square(grad)
    param -= lr * grad / (np.sqrt(square_avg) + eps)
    updated.deliver()


@kernel(
    example=lambda draw, **_: _numbers(draw, "param", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    options={
        **RATES,
        "step": (1, 10, 100_000),
        "beta1": (0.9, 0),
        "beta2": (0.999, 0.5),
        "eps": (1e-8, 0.1),
        "decoupled": (False, True),
    },
    updates=("param", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    **PROMISE,
)
def adam_step(
    param: Array,
    grad: ArrayLike,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0,
    decoupled: bool = False,
) -> None:
    """Adam, AdamW (decoupled weight decay) and AMSGrad (with `max_exp_avg_sq`), in PyTorch's convention.

    With g = grad + weight_decay * param:

        exp_avg = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
        param -= lr / (1 - beta1^step) * exp_avg / (sqrt(exp_avg_sq / (1 - beta2^step)) + eps)

    With decoupled decay g = grad, and param is first multiplied by 1 - lr * weight_decay. With AMSGrad the
    largest exp_avg_sq so far takes its place in the divisor.

    Parameters
    ----------
    param : ndarray of a float dtype, any shape
        Parameters; written.
    grad : array_like, the shape of param
        Gradient of the loss; cast to the dtype of param.
    exp_avg, exp_avg_sq : ndarray, the shape and dtype of param
        State, zero before the first step: running averages of g and g^2; written.
    max_exp_avg_sq : ndarray, the shape and dtype of param, optional
        State of AMSGrad, zero before the first step; written.
    step : int, at least 1
        Number of this step, counted from 1, for the correction of the averages' bias to zero.
    lr : float, at least 0
        Learning rate.
    beta1, beta2 : float, at least 0 and below 1
        What is left of the averages after a step.
    eps : float, at least 0
        Keeps the divisor from 0; it stands outside the root, as in the paper.
    weight_decay : float, at least 0
        Strength of the L2 penalty, or of the decoupled decay.
    decoupled : bool
        Whether param itself decays (AdamW) instead of a penalty being added to the gradient.

    Raises
    ------
    TypeError, ValueError
        As `sgd_step`; also where a state has another dtype or shape than param, or shares memory.

    Notes
    -----
    The corrections are computed in float64 whatever the dtype of param.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; Loshchilov and Hutter, "Decoupled
    Weight Decay Regularization", ICLR 2019; Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond",
    ICLR 2018.
    """
    grad, updated, adam = checks.adam_step(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        max_exp_avg_sq,
        step,
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        decoupled,
    )
    param, exp_avg, exp_avg_sq, *maximum = updated.arrays
    grad = _plus_decay(grad, param, adam.decay)
    exp_avg *= adam.beta1
    exp_avg += (1 - adam.beta1) * grad
    exp_avg_sq *= adam.beta2
    exp_avg_sq += (1 - adam.beta2) * np.square(grad)
    for largest in maximum:
        np.maximum(largest, exp_avg_sq, out=largest)
    root = np.sqrt(maximum[0] if maximum else exp_avg_sq)
    if adam.shrink != 1:
        param *= adam.shrink
    param -= adam.rate * exp_avg / (adam.correction * root + adam.eps)
    updated.deliver()
