"""Checks of the normalisations and their backward."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output, Updated, wrong

Array = NDArray[Any]
Gradients = tuple[Output | None, Output | None, Output | None]


def layer_norm(
    x: Any, weight: Any, bias: Any, eps: Any, out: Any
) -> tuple[Array, Array | None, Array | None, float, Output]:
    """Plain x[..., length], weight[length] and bias[length] or None, eps, and the Output."""
    name = "layer_norm"
    eps = as_eps(name, eps)
    given = {"x": x, **checks.present(weight=weight, bias=bias)}
    arrays, originals, dtype = checks.floats(name, **given)
    plain = dict(zip(given, arrays, strict=True))
    x = plain.pop("x")
    checks.at_least(name, "x", x, 1)
    for argument, array in plain.items():
        checks.has_shape(name, argument, array, x.shape[-1:], "as x has shape", x.shape)
    y = checks.output(name, out, x.shape, dtype, reads=originals)
    return x, plain.get("weight"), plain.get("bias"), eps, y


def layer_norm_backward(
    grad_out: Any, x: Any, weight: Any, eps: Any, needs: Any
) -> tuple[Array, Array, Array | None, float, Gradients]:
    """Plain grad_out and x[..., length], weight[length] or None, eps, and an Output for each needed gradient."""
    name = "layer_norm_backward"
    eps, needed = as_eps(name, eps), checks.needed(name, needs)
    arrays, _, dtype = checks.floats(name, grad_out=grad_out, x=x, **checks.present(weight=weight))
    grad_out, x, *weights = arrays
    checks.at_least(name, "x", x, 1)
    checks.has_shape(name, "grad_out", grad_out, x.shape, "the shape of x")
    for array in weights:
        checks.has_shape(name, "weight", array, x.shape[-1:], "as x has shape", x.shape)
    gradients = _gradients(name, needed, x.shape, x.shape[-1:], dtype)
    return grad_out, x, weights[0] if weights else None, eps, gradients


def batch_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: Any,
    momentum: Any,
    eps: Any,
    return_stats: Any,
    out: Any,
) -> tuple[Array, Array, Array, Updated, bool, float, float, Output, tuple[Output, Output] | None]:
    """Plain x[N, C, ...], weight[C] and bias[C], the running mean and variance, the options, and the Outputs.

    The running statistics stand in an Updated, of which only training changes anything.
    """
    name = "batch_norm"
    training = checks.boolean(name, "training", training)
    with_stats = checks.boolean(name, "return_stats", return_stats)
    momentum, eps = as_momentum(name, momentum), as_eps(name, eps)
    if training:
        checks.updatable(name, "running_mean", running_mean)
        checks.updatable(name, "running_var", running_var)
        if running_var.dtype.newbyteorder("=") != running_mean.dtype.newbyteorder("="):
            expected = f"dtype {running_mean.dtype}, as running_mean has"
            raise wrong(TypeError, name, "running_var", f"has dtype {running_var.dtype}", expected)
    running = {"running_mean": running_mean, "running_var": running_var}
    parameters = {"weight": weight, "bias": checks.as_real(name, "bias", bias), **running}
    arrays, given, dtype = checks.floats(name, x=x, **parameters)
    x, weight, bias, *statistics = arrays
    _has_channels(name, x, **dict(zip(parameters, arrays[1:], strict=True)))
    if training:
        _is_separate(name, dict(zip(["x", *parameters], given, strict=True)))
        if x.size < 2 * x.shape[1] or x.size == 0 < x.shape[1]:
            expected = "at least two values of each channel where training is True"
            raise wrong(ValueError, name, "x", f"has shape {x.shape}", expected)
    compute = checks.compute_dtype(dtype)
    updated = Updated([running_mean, running_var] if training else statistics, compute)
    y = checks.output(name, out, x.shape, dtype, reads=given)
    stats = None
    if with_stats:
        mean, inv_std = (
            checks.output(name, None, weight.shape, dtype, argument=one) for one in ("mean", "inv_std")
        )
        stats = mean, inv_std
    return x, weight, bias, updated, training, momentum, eps, y, stats


def batch_norm_backward(
    grad_out: Any, x: Any, weight: Any, mean: Any, inv_std: Any, training: Any, needs: Any
) -> tuple[Array, Array, Array, Array, Array, bool, Gradients]:
    """Plain grad_out and x[N, C, ...], weight, mean and inv_std[C], training, and the Outputs."""
    name = "batch_norm_backward"
    training, needed = checks.boolean(name, "training", training), checks.needed(name, needs)
    arrays, _, dtype = checks.floats(name, grad_out=grad_out, x=x, weight=weight, mean=mean, inv_std=inv_std)
    grad_out, x, weight, mean, inv_std = arrays
    _has_channels(name, x, weight=weight, mean=mean, inv_std=inv_std)
    checks.has_shape(name, "grad_out", grad_out, x.shape, "the shape of x")
    gradients = _gradients(name, needed, x.shape, weight.shape, dtype)
    return grad_out, x, weight, mean, inv_std, training, gradients


def as_eps(function: str, eps: Any) -> float:
    return checks.number(function, "eps", eps, low=0, finite=True)


def as_momentum(function: str, momentum: Any) -> float:
    value = checks.number(function, "momentum", momentum, low=0)
    if value > 1:
        raise wrong(ValueError, function, "momentum", f"is {momentum!r}", "a number from 0 to 1")
    return value


def _has_channels(function: str, x: Array, **parameters: Array) -> None:
    """A ValueError where x has no channels, or a parameter not one number for each."""
    checks.at_least(function, "x", x, 2)
    for argument, array in parameters.items():
        checks.has_shape(function, argument, array, x.shape[1:2], "as x has shape", x.shape)


def _is_separate(function: str, given: dict[str, Array]) -> None:
    """A ValueError where a running statistic shares memory with another argument."""
    for statistic in ("running_mean", "running_var"):
        for argument, array in given.items():
            if argument != statistic and checks.overlaps(array, given[statistic]):
                given_as = f"shares memory with {argument}"
                raise wrong(ValueError, function, statistic, given_as, "separate memory")


def _gradients(
    function: str, needed: tuple[bool, bool, bool], x: tuple[int, ...], parameter: tuple[int, ...], dtype: Any
) -> Gradients:
    """An Output for each needed gradient: of x, weight and bias."""
    for_x, for_weight, for_bias = (
        checks.output(function, None, shape, dtype, argument=argument) if need else None
        for argument, shape, need in zip(
            ("grad_x", "grad_weight", "grad_bias"), (x, parameter, parameter), needed, strict=True
        )
    )
    return for_x, for_weight, for_bias
