"""Optimizer steps by Numba; see `fastnn/optimizers.py` for what each function is.

Each is one loop over flat arrays. Choices that are the same for all elements stand inside it, since LLVM
takes them out, and keep 0 * infinity from making NaN where nothing is to be added.
"""

import math

from fastnn_ext.checks import optimizers as checks
from fastnn_ext.njit._options import njit

_inlined = njit(forceinline=True)


@_inlined
def _plus_decay(grad, param, weight_decay):
    return grad + weight_decay * param if weight_decay != 0 else grad


@_inlined
def _larger(x, y):
    """The larger of two numbers, or NaN."""
    value = x if x > y else y
    return x if x != x else value


@njit
def _sgd(param, grad, lr, weight_decay):
    real = param.dtype.type
    lr, weight_decay = real(lr), real(weight_decay)
    for i in range(param.size):
        param[i] -= lr * _plus_decay(grad[i], param[i], weight_decay)


@njit
def _momentum(param, velocity, grad, lr, momentum, nesterov, weight_decay):
    real = param.dtype.type
    lr, momentum, weight_decay = real(lr), real(momentum), real(weight_decay)
    for i in range(param.size):
        g = _plus_decay(grad[i], param[i], weight_decay)
        v = momentum * velocity[i] + g
        velocity[i] = v
        param[i] -= lr * (g + momentum * v if nesterov else v)


@njit
def _adagrad(param, square_sum, grad, lr, eps, weight_decay):
    real = param.dtype.type
    lr, eps, weight_decay = real(lr), real(eps), real(weight_decay)
    for i in range(param.size):
        g = _plus_decay(grad[i], param[i], weight_decay)
        square = square_sum[i] + g * g
        square_sum[i] = square
        param[i] -= lr * g / (math.sqrt(square) + eps)


@njit
def _rmsprop(param, square_avg, grad, lr, alpha, eps, weight_decay):
    real = param.dtype.type
    rest = real(1 - alpha)
    lr, alpha, eps, weight_decay = real(lr), real(alpha), real(eps), real(weight_decay)
    for i in range(param.size):
        g = _plus_decay(grad[i], param[i], weight_decay)
        square = alpha * square_avg[i] + rest * (g * g)
        square_avg[i] = square
        param[i] -= lr * g / (math.sqrt(square) + eps)


@njit
def _adam(param, exp_avg, exp_avg_sq, grad, adam):
    real = param.dtype.type
    beta1, rest1 = real(adam.beta1), real(1 - adam.beta1)
    beta2, rest2 = real(adam.beta2), real(1 - adam.beta2)
    rate, correction, eps = real(adam.rate), real(adam.correction), real(adam.eps)
    decay, shrink = real(adam.decay), real(adam.shrink)
    for i in range(param.size):
        g = _plus_decay(grad[i], param[i], decay)
        average = beta1 * exp_avg[i] + rest1 * g
        square = beta2 * exp_avg_sq[i] + rest2 * (g * g)
        exp_avg[i], exp_avg_sq[i] = average, square
        param[i] = shrink * param[i] - rate * average / (correction * math.sqrt(square) + eps)


@njit
def _amsgrad(param, exp_avg, exp_avg_sq, maximum, grad, adam):
    real = param.dtype.type
    beta1, rest1 = real(adam.beta1), real(1 - adam.beta1)
    beta2, rest2 = real(adam.beta2), real(1 - adam.beta2)
    rate, correction, eps = real(adam.rate), real(adam.correction), real(adam.eps)
    decay, shrink = real(adam.decay), real(adam.shrink)
    for i in range(param.size):
        g = _plus_decay(grad[i], param[i], decay)
        average = beta1 * exp_avg[i] + rest1 * g
        square = beta2 * exp_avg_sq[i] + rest2 * (g * g)
        largest = _larger(square, maximum[i])
        exp_avg[i], exp_avg_sq[i], maximum[i] = average, square, largest
        param[i] = shrink * param[i] - rate * average / (correction * math.sqrt(largest) + eps)


def _run(loop, grad, updated, *numbers):
    """The loop over flat arrays."""
    loop(*[array.ravel() for array in updated.arrays], grad.ravel(), *numbers)
    updated.deliver()


def sgd_step(param, grad, *, lr, weight_decay=0):
    _run(_sgd, *checks.sgd_step(param, grad, lr, weight_decay))


def momentum_step(param, grad, velocity, *, lr, momentum=0.9, nesterov=False, weight_decay=0):
    _run(_momentum, *checks.momentum_step(param, grad, velocity, lr, momentum, nesterov, weight_decay))


def adagrad_step(param, grad, square_sum, *, lr, eps=1e-10, weight_decay=0):
    _run(_adagrad, *checks.adagrad_step(param, grad, square_sum, lr, eps, weight_decay))


def rmsprop_step(param, grad, square_avg, *, lr, alpha=0.99, eps=1e-8, weight_decay=0):
    _run(_rmsprop, *checks.rmsprop_step(param, grad, square_avg, lr, alpha, eps, weight_decay))


def adam_step(
    param,
    grad,
    exp_avg,
    exp_avg_sq,
    max_exp_avg_sq=None,
    *,
    step,
    lr,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0,
    decoupled=False,
):
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
    _run(_adam if max_exp_avg_sq is None else _amsgrad, grad, updated, adam)
