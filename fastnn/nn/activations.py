"""Activations as layers, one for each activation that there is a kernel for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

from numpy.typing import NDArray

import fastnn
from fastnn._contract import KERNELS
from fastnn.nn._layer import Layer, Shape
from fastnn.nn._plan import Stage, stage
from fastnn_ext.checks import integer
from fastnn_ext.checks.activations import FUSABLE

Array = NDArray[Any]


@cache
def saves_output(activation: str) -> bool:
    """Whether the backward of an activation wants its output, not its input."""
    return "y" in KERNELS[f"{activation}_backward"].signature.parameters


class Activation(Layer):
    """An element-wise function, or softmax.

    After a `Linear` or `Conv2d` in a `Sequential`, one with its default options is computed by that layer's kernel.
    """

    kernel: ClassVar[str]

    def _forward(self, x: Array, training: bool) -> Array:
        out = self._scratch("y", x.shape, x.dtype) if training else None
        y: Array = getattr(fastnn, self.kernel)(x, out=out, **self.config)
        if training:
            self._saved = y if saves_output(self.kernel) else x
        return y

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        grad, out = grad.astype(saved.dtype, copy=False), self._scratch("grad", saved.shape, saved.dtype)
        gradient: Array = getattr(fastnn, f"{self.kernel}_backward")(grad, saved, out=out, **self.config)
        return gradient

    def _stages(self) -> Iterator[Stage]:
        yield stage(getattr(fastnn, self.kernel), self.output_shape, **self.config)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    @property
    def fusable(self) -> str | None:
        """The name by which `linear` and `conv2d` know this activation; None where they do not."""
        has_defaults = self.config == type(self)().config
        return self.kernel if has_defaults and self.kernel in FUSABLE else None


class Step(Activation):
    """1 where x >= threshold, else 0; its gradient is 0."""

    kernel = "step"

    def __init__(self, threshold: float = 0) -> None:
        fastnn.step(0.0, threshold=threshold)


class Sign(Activation):
    """-1, 0 or 1; its gradient is 0."""

    kernel = "sign"


class ReLU(Activation):
    """max(x, 0)."""

    kernel = "relu"


class LeakyReLU(Activation):
    """max(x, 0) + negative_slope min(x, 0)."""

    kernel = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        fastnn.leaky_relu(0.0, negative_slope=negative_slope)


class ELU(Activation):
    """x where x > 0, else alpha (exp(x) - 1)."""

    kernel = "elu"

    def __init__(self, alpha: float = 1) -> None:
        fastnn.elu(0.0, alpha=alpha)


class SELU(Activation):
    """The scaled ELU that keeps mean 0 and variance 1."""

    kernel = "selu"


class GELU(Activation):
    """x times the normal distribution function of x."""

    kernel = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        fastnn.gelu(0.0, approximate=approximate)


class SiLU(Activation):
    """x sigmoid(x)."""

    kernel = "silu"


class Mish(Activation):
    """x tanh(softplus(x))."""

    kernel = "mish"


class Softplus(Activation):
    """log(1 + exp(x))."""

    kernel = "softplus"


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    kernel = "sigmoid"


class Hardsigmoid(Activation):
    """The sigmoid in three straight lines."""

    kernel = "hard_sigmoid"


class Tanh(Activation):
    """The hyperbolic tangent."""

    kernel = "tanh"


class Hardtanh(Activation):
    """x held to the range from -1 to 1."""

    kernel = "hard_tanh"


class Softsign(Activation):
    """x / (1 + |x|)."""

    kernel = "softsign"


class Softmax(Activation):
    """Probabilities: exp(x) over its sum along `axis`."""

    kernel = "softmax"

    def __init__(self, axis: int = -1) -> None:
        integer("Softmax", "axis", axis, low=-64, high=63)


class LogSoftmax(Activation):
    """The logarithm of `Softmax`."""

    kernel = "log_softmax"

    def __init__(self, axis: int = -1) -> None:
        integer("LogSoftmax", "axis", axis, low=-64, high=63)


def layer_of(name: str) -> Activation:
    """The layer for an activation's kernel, with default options."""
    return next(layer for layer in Activation.__subclasses__() if layer.kernel == name)()
