"""The dense layer, its backward, and the deltas of backpropagation as textbooks write them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn.activations import activate, derivative_from_output
from fastnn_ext.checks import linear as checks
from fastnn_ext.checks.activations import FUSABLE

Array = NDArray[Any]

#: A sample at a time, mini-batches, a large square product, and lengths that no register tile divides.
WORKLOADS = {
    f"{n}x{inputs}->{outputs}": {"n": n, "in": inputs, "out": outputs}
    for n, inputs, outputs in (
        (1, 128, 10),
        (1, 784, 128),
        (17, 31, 29),
        (32, 784, 128),
        (64, 784, 512),
        (256, 1024, 1024),
    )
}


def _layer(draw: Draw, **_: Any) -> dict[str, Any]:
    n, inputs, outputs = draw.size("n"), draw.size("in"), draw.size("out")
    scale = 1 / math.sqrt(max(inputs, 1))
    return {
        "x": draw.real(n, inputs),
        "weight": draw.real(outputs, inputs, low=-scale, high=scale),
        "bias": draw.real(outputs, low=-1, high=1),
    }


def _outputs(draw: Draw, **_: Any) -> dict[str, Any]:
    n, outputs = draw.size("n"), draw.size("out")
    y, target = draw.real(n, outputs, low=0.02, high=0.98), draw.real(n, outputs, low=0, high=1)
    return {"y": y, "target": target}


def _next_layer(draw: Draw, **_: Any) -> dict[str, Any]:
    n, inputs, outputs = draw.size("n"), draw.size("in"), draw.size("out")
    scale = 1 / math.sqrt(max(outputs, 1))
    return {
        "delta_next": draw.real(n, outputs),
        "weight_next": draw.real(outputs, inputs, low=-scale, high=scale),
        "y": draw.real(n, inputs, low=0.02, high=0.98),
    }


def _rows(array: Array) -> Array:
    """`array` as a matrix whose rows run along the last axis, so that a product is one call of the BLAS."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


@kernel(
    example=_layer,
    # Where step and sign jump, rounding decides.
    options={"activation": tuple(name for name in FUSABLE if name not in ("step", "sign"))},
    ulp=16,
    conditioned=True,
    workloads=WORKLOADS,
)
def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """Dense layer, f(x @ weight.T + bias).

    Parameters
    ----------
    x : array_like, shape (..., in)
        Inputs; any number of leading dimensions, or none.
    weight : array_like or PackedWeight, shape (out, in)
        Row i holds the weights into unit i. For many calls with the same weight there is `pack`.
    bias : array_like, shape (out,), optional
        Added to every row; nothing is where it is None.
    activation : str, optional
        The function f that is applied to each element of the result: the name of an element-wise activation,
        whose options have their defaults. None is the identity.
    out : ndarray, shape (..., out), optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    ndarray, shape (..., out)
        In the promoted float dtype of the arguments.

    Raises
    ------
    ValueError
        Where the shapes do not fit, the activation is unknown, or `out` has the wrong shape or dtype, is
        read-only or overlaps an argument.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    Each sum of `in` terms is accumulated in the compute dtype in an order of the version's own; its error is
    at most 16 units of the last place of the sum of the terms' absolute values. Two kinds of sums of hundreds of terms
    have larger ones, in the definition too: where all roundings go the same way, as those of equal terms do, and where
    one term is so large that each of the others is rounded to its units. 29 were found for up to 4096 terms.
    """
    x, weight, bias, activation, y = checks.linear(x, weight, bias, activation, out)
    z = _rows(x) @ weight.T
    if bias is not None:
        z += bias
    return y.fill(activate(activation, z).reshape(*x.shape[:-1], weight.shape[0]))


@kernel(
    backward_of="linear",
    options={"needs": ((True, True, True), (True, False, False), (False, True, True))},
    ulp=16,
    conditioned=True,
    workloads=WORKLOADS,
)
def linear_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    needs: tuple[bool, bool, bool] = (True, True, True),
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of a loss with respect to the arguments of `linear` without activation.

    grad_x = grad_out @ weight, grad_weight = grad_out.T @ x and grad_bias = grad_out summed over the rows. A
    fused activation is undone first, by its own backward.

    Parameters
    ----------
    grad_out : array_like, shape (..., out)
        Gradient with respect to x @ weight.T + bias.
    x : array_like, shape (..., in)
        The inputs of the forward pass.
    weight : array_like, shape (out, in)
        The weights of the forward pass.
    needs : tuple of three bool
        Which of the gradients are computed; the first layer of a network has no use for its grad_x.
    out : tuple of three ndarray or None, optional
        Where (grad_x, grad_weight, grad_bias) are written, each that is not None: arrays that are needed, share no
        memory with an argument or each other, and are returned.

    Returns
    -------
    tuple of ndarray or None
        (grad_x, grad_weight, grad_bias) in the shapes of x, weight and bias and in the promoted float dtype
        of the arguments; None where not needed.

    Raises
    ------
    ValueError
        Where the shapes do not fit, `needs` or `out` has not three members, or one of `out` is not needed, has
        the wrong shape or dtype, is read-only or overlaps an argument or another.
    TypeError
        Where an argument is not an array of real numbers, or a need not a bool.

    Notes
    -----
    grad_bias is accumulated in float64; the products as in `linear`.
    """
    grad_out, x, weight, gradients = checks.linear_backward(grad_out, x, weight, needs, out)
    grad_x, grad_weight, grad_bias = gradients
    g = _rows(grad_out)
    return (
        grad_x.fill((g @ weight).reshape(x.shape)) if grad_x else None,
        grad_weight.fill(g.T @ _rows(x)) if grad_weight else None,
        grad_bias.fill(np.sum(g, axis=0, dtype=np.float64)) if grad_bias else None,
    )


@kernel(
    example=_outputs,
    options={
        "activation": ("sigmoid", "tanh", "relu", None),
        "loss": ("half_squared_error", "binary_cross_entropy"),
    },
    workloads={
        f"{n}x{outputs}": {"n": n, "out": outputs} for n, outputs in ((1, 10), (32, 128), (256, 1024))
    },
)
def output_delta(
    y: ArrayLike,
    target: ArrayLike,
    *,
    activation: str | None = "sigmoid",
    loss: str = "half_squared_error",
    out: Array | None = None,
) -> Array:
    """Delta of the output layer: the derivative of each sample's loss with respect to the pre-activation z.

    For loss "half_squared_error", E = 1/2 sum (y - target)^2 over the outputs of a sample, it is
    (y - target) f'(z). In the matched pairs, "sigmoid" with "binary_cross_entropy" and "softmax" with
    "cross_entropy" (each loss summed over the outputs of a sample), f' cancels and y - target is left.

    Parameters
    ----------
    y : array_like, any shape
        The network's output f(z), one sample per row.
    target : array_like, the shape of y
        What it should be; with "cross_entropy", rows of probabilities that sum to 1, such as one-hot labels.
    activation : {"sigmoid", "tanh", "relu", None, "softmax"}
        The function f of the output layer; f'(z) is taken from the output: y (1 - y) for the sigmoid.
    loss : {"half_squared_error", "binary_cross_entropy", "cross_entropy"}
        The loss of one sample. Nothing is averaged over samples: each row is that sample's own delta, as in
        per-sample backpropagation; divide by the number of samples for the gradient of a mean.
    out : ndarray, the shape of y, optional
        Written and returned when given; may be `y` or `target` itself.

    Returns
    -------
    ndarray
        Of the shape of y, in the promoted float dtype of the arguments.

    Raises
    ------
    ValueError
        Where shapes differ, where `out` does not fit, or where the loss is unknown or has no delta for the
        activation.
    TypeError
        Where an argument is not an array of real numbers.

    References
    ----------
    Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
    """
    y, target, derivative, delta = checks.output_delta(y, target, activation, loss, out)
    return delta.fill((y - target) * derivative_from_output(derivative, y))


@kernel(
    example=_next_layer,
    options={"activation": ("sigmoid", "tanh", "relu", None)},
    ulp=16,
    conditioned=True,
    workloads=WORKLOADS,
)
def hidden_delta(
    delta_next: ArrayLike,
    weight_next: ArrayLike,
    y: ArrayLike,
    *,
    activation: str | None = "sigmoid",
    out: Array | None = None,
) -> Array:
    """Delta of a hidden layer from that of the layer after it: (delta_next @ weight_next) f'(z).

    Parameters
    ----------
    delta_next : array_like, shape (..., out)
        Delta of the next layer: the derivative of the loss with respect to that layer's pre-activation.
    weight_next : array_like, shape (out, in)
        The next layer's weights, in the layout of `linear`.
    y : array_like, shape (..., in)
        This layer's output f(z).
    activation : {"sigmoid", "tanh", "relu", None}
        This layer's function f; f'(z) is taken from the output: y (1 - y) for the sigmoid.
    out : ndarray, the shape of y, optional
        Written and returned when given; it shares no memory with an argument.

    Returns
    -------
    ndarray, shape (..., in)
        In the promoted float dtype of the arguments.

    Raises
    ------
    ValueError
        Where the shapes do not fit, the activation is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    The weights' gradient of a layer with delta d and inputs x is d.T @ x: `linear_backward(d, x, weight)`.
    The product is accumulated as in `linear`.

    References
    ----------
    Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
    """
    delta_next, weight_next, y, activation, delta = checks.hidden_delta(
        delta_next, weight_next, y, activation, out
    )
    error = (_rows(delta_next) @ weight_next).reshape(y.shape)
    return delta.fill(error * derivative_from_output(activation, y))
