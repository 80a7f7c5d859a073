"""Optimizer steps by Numba; see `fastnn/optimizers.py` for what each function is.

Each is one loop over flat arrays. Choices that are the same for all elements stand inside it, since LLVM
takes them out, and keep 0 * infinity from making NaN where nothing is to be added.
"""

import math

from fastnn_ext.checks import optimizers as checks
from fastnn_ext.njit import _calls as calls
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


# ----------------------------------------------------------------------------------------------------
# Calls


@_inlined
def _are_ready(param, grad, state):
    """Whether three arrays are plain, alike and separate, and those to be written are writable."""
    if not (calls.is_array(param) and calls.are_alike(param, grad) and calls.are_alike(param, state)):
        return False
    apart = calls.are_separate(param, grad) and calls.are_separate(param, state)
    return apart and calls.are_separate(grad, state) and calls.is_writable(param) and calls.is_writable(state)


@njit(nogil=False)
def _sgd_call(param, grad, lr, weight_decay):
    rate, decay = calls.number(lr), calls.number(weight_decay)
    ready = calls.is_array(param) and calls.are_alike(param, grad) and calls.is_writable(param)
    if not (ready and calls.are_separate(param, grad) and calls.is_rate(rate) and calls.is_rate(decay)):
        return calls.nothing(param)
    state = calls.release(param)
    _sgd(calls.elements(param), calls.elements(grad), rate, decay)
    calls.take_back(state)
    return calls.done(param)


@njit(nogil=False)
def _momentum_call(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    rate, inertia, decay = calls.number(lr), calls.number(momentum), calls.number(weight_decay)
    known = calls.is_rate(rate) and calls.is_rate(inertia) and calls.is_rate(decay)
    if not (known and calls.is_boolean(nesterov) and _are_ready(param, grad, velocity)):
        return calls.nothing(param)
    state = calls.release(param)
    arrays = calls.elements(param), calls.elements(velocity), calls.elements(grad)
    _momentum(*arrays, rate, inertia, calls.is_true(nesterov), decay)
    calls.take_back(state)
    return calls.done(param)


@njit(nogil=False)
def _adagrad_call(param, grad, square_sum, lr, eps, weight_decay):
    rate, least, decay = calls.number(lr), calls.number(eps), calls.number(weight_decay)
    known = calls.is_rate(rate) and calls.is_rate(least) and calls.is_rate(decay)
    if not (known and _are_ready(param, grad, square_sum)):
        return calls.nothing(param)
    state = calls.release(param)
    _adagrad(calls.elements(param), calls.elements(square_sum), calls.elements(grad), rate, least, decay)
    calls.take_back(state)
    return calls.done(param)


@njit(nogil=False)
def _rmsprop_call(param, grad, square_avg, lr, alpha, eps, weight_decay):
    rate, part, least, decay = (
        calls.number(lr), calls.number(alpha), calls.number(eps), calls.number(weight_decay)
    )  # fmt: skip
    known = calls.is_rate(rate) and calls.is_rate(least) and calls.is_rate(decay) and 0 <= part < 1
    if not (known and _are_ready(param, grad, square_avg)):
        return calls.nothing(param)
    state = calls.release(param)
    arrays = calls.elements(param), calls.elements(square_avg), calls.elements(grad)
    _rmsprop(*arrays, rate, part, least, decay)
    calls.take_back(state)
    return calls.done(param)


@_inlined
def _numbers(step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Whether the numbers of an Adam step need no closer look, and what follows from them."""
    count, rate, least, decay = (
        calls.whole_number(step), calls.number(lr), calls.number(eps), calls.number(weight_decay)
    )  # fmt: skip
    first, second = calls.number(beta1), calls.number(beta2)
    known = calls.is_rate(rate) and calls.is_rate(least) and calls.is_rate(decay) and count >= 1
    known = known and 0 <= first < 1 and 0 <= second < 1 and calls.is_boolean(decoupled)
    apart = calls.is_true(decoupled)
    adam = checks.Adam(
        first,
        second,
        rate / (1 - math.pow(first, count)),
        1 / math.sqrt(1 - math.pow(second, count)),
        least,
        0.0 if apart else decay,
        1 - rate * decay if apart else 1.0,
    )
    return known, adam


@njit(nogil=False)
def _adam_call(param, grad, exp_avg, exp_avg_sq, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    known, adam = _numbers(step, lr, beta1, beta2, eps, weight_decay, decoupled)
    if not (known and _are_ready(param, grad, exp_avg) and _are_ready(exp_avg_sq, grad, param)):
        return calls.nothing(param)
    if not calls.are_separate(exp_avg, exp_avg_sq):
        return calls.nothing(param)
    state = calls.release(param)
    averages = calls.elements(exp_avg), calls.elements(exp_avg_sq)
    _adam(calls.elements(param), *averages, calls.elements(grad), adam)
    calls.take_back(state)
    return calls.done(param)


@njit(nogil=False)
def _amsgrad_call(
    param, grad, exp_avg, exp_avg_sq, maximum, step, lr, beta1, beta2, eps, weight_decay, decoupled
):
    known, adam = _numbers(step, lr, beta1, beta2, eps, weight_decay, decoupled)
    if not (known and _are_ready(param, grad, exp_avg) and _are_ready(exp_avg_sq, grad, param)):
        return calls.nothing(param)
    if not (_are_ready(maximum, grad, param) and _are_ready(exp_avg, exp_avg_sq, maximum)):
        return calls.nothing(param)
    if not calls.are_separate(exp_avg_sq, maximum):
        return calls.nothing(param)
    state = calls.release(param)
    averages = calls.elements(exp_avg), calls.elements(exp_avg_sq), calls.elements(maximum)
    _amsgrad(calls.elements(param), *averages, calls.elements(grad), adam)
    calls.take_back(state)
    return calls.done(param)


_SGD, _MOMENTUM, _ADAGRAD = calls.Call(_sgd_call), calls.Call(_momentum_call), calls.Call(_adagrad_call)
_RMSPROP, _ADAM, _AMSGRAD = calls.Call(_rmsprop_call), calls.Call(_adam_call), calls.Call(_amsgrad_call)


# ----------------------------------------------------------------------------------------------------
# Kernels


def _run(call, loop, grad, updated, *numbers):
    """The loop over flat arrays."""
    call.prepare(grad)
    loop(*[array.ravel() for array in updated.arrays], grad.ravel(), *numbers)
    updated.deliver()


def sgd_step(param, grad, *, lr, weight_decay=0):
    if _SGD(param, grad, lr, weight_decay) is None:
        _run(_SGD, _sgd, *checks.sgd_step(param, grad, lr, weight_decay))


def momentum_step(param, grad, velocity, *, lr, momentum=0.9, nesterov=False, weight_decay=0):
    arguments = param, grad, velocity, lr, momentum, nesterov, weight_decay
    if _MOMENTUM(*arguments) is None:
        _run(_MOMENTUM, _momentum, *checks.momentum_step(*arguments))


def adagrad_step(param, grad, square_sum, *, lr, eps=1e-10, weight_decay=0):
    if _ADAGRAD(param, grad, square_sum, lr, eps, weight_decay) is None:
        _run(_ADAGRAD, _adagrad, *checks.adagrad_step(param, grad, square_sum, lr, eps, weight_decay))


def rmsprop_step(param, grad, square_avg, *, lr, alpha=0.99, eps=1e-8, weight_decay=0):
    arguments = param, grad, square_avg, lr, alpha, eps, weight_decay
    if _RMSPROP(*arguments) is None:
        _run(_RMSPROP, _rmsprop, *checks.rmsprop_step(*arguments))


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
    arrays, numbers = (
        (param, grad, exp_avg, exp_avg_sq),
        (step, lr, beta1, beta2, eps, weight_decay, decoupled),
    )
    if max_exp_avg_sq is None:
        if _ADAM(*arrays, *numbers) is None:
            _run(_ADAM, _adam, *checks.adam_step(*arrays, None, *numbers))
    elif _AMSGRAD(*arrays, max_exp_avg_sq, *numbers) is None:
        _run(_AMSGRAD, _amsgrad, *checks.adam_step(*arrays, max_exp_avg_sq, *numbers))
