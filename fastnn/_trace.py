"""`trace`: every intermediate of one forward, backward and update step, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.nn import Dropout, Layer, Loss, Sequential
from fastnn.nn.activations import Activation, layer_of
from fastnn.nn.affine import Affine
from fastnn.nn.sequential import leaves
from fastnn.optim import SGD

Array = NDArray[Any]


class Line(NamedTuple):
    """One line of a trace: what it belongs to, the name, how it is computed, and the value."""

    part: str
    name: str
    formula: str
    value: Array


class Trace(Mapping[str, Array]):
    """The intermediates of a step by name; prints as text, and as a table by `markdown()`.

    Attributes
    ----------
    lines : tuple of Line
        In the order of computation.
    """

    def __init__(self, lines: list[Line]) -> None:
        self.lines = tuple(lines)
        self._values = {line.name: line.value for line in lines}

    def __getitem__(self, name: str) -> Array:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        named = [f"{line.name} = {line.formula}" if line.formula else line.name for line in self.lines]
        width = max(map(len, named))
        text, part = [], ""
        for line, name in zip(self.lines, named, strict=True):
            if line.part != part:
                part = line.part
                text.append(f"\n{part}")
            text.append(f"  {name:{width}} = {_shown(line.value)}")
        return "\n".join(text).lstrip()

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        rows = ["| step | name | formula | value |", "|---|---|---|---|"]
        rows += [
            f"| {line.part} | `{line.name}` | {line.formula and f'`{line.formula}`'} | `{_shown(line.value)}` |"
            for line in self.lines
        ]
        return "\n".join(rows)


def _shown(value: Array) -> str:
    text = np.array2string(np.asarray(value), precision=8, separator=", ", suppress_small=False)
    return " ".join(text.split())


def trace(model: Sequential, x: ArrayLike, target: ArrayLike, *, loss: Loss, learning_rate: float) -> Trace:
    """One step of gradient descent with everything that is computed on the way.

    Parameters
    ----------
    model : Sequential
        It is not changed: the step is made on a copy, with activations apart from the layers before them and without
        dropout.
    x, target : array_like
        One sample, or a batch.
    loss : Loss
        Of `fastnn.nn`.
    learning_rate : float
        Of the update.

    Returns
    -------
    Trace
        With w1, b1, w2, ... the parameters of the layers that have any, it maps names to arrays: z1 = w1 x + b1, h1 the
        activation of z1, y the output, loss, delta1 the gradient for z1, grad_w1, grad_b1, new_w1 and new_b1. Other
        layers' outputs are named after the layer and its place, other parameters after those of PyTorch (w1_ih_l0 is
        the weight_ih_l0 of layer 1), and running statistics are running_mean1 and new_running_mean1.
    """
    network = _taken_apart(model)
    learning = [layer for layer in network if _learns(layer)]
    value = np.asanyarray(x)
    lines = [Line("Given", "x", "", value), Line("Given", "target", "", np.asanyarray(target))]
    lines += _states("Given", learning, "")
    name, k, outputs = "x", 0, []
    for i, layer in enumerate(network):
        before = name
        k += _learns(layer)
        name, formula = _named(layer, i, k, before)
        if layer is network[-1] and not isinstance(layer, Affine):
            name = "y"
        outputs.append(name)
        value = layer.forward(value, training=True).copy()
        lines.append(Line("Forward", name, formula, value))
    if name != "y":
        lines.append(Line("Forward", "y", name, value))
    error, grad = loss.value_and_grad(value, target)
    lines += [
        Line("Error", "loss", f"{type(loss).__name__}(y, target)", error),
        Line("Backward", "grad_y", "dloss/dy", grad),
    ]
    for layer, name in zip(reversed(network.layers), reversed(outputs), strict=True):
        if _learns(layer):
            lines.append(Line("Backward", f"delta{k}", f"dloss/d{name}", grad))
        grad = _back(layer, grad)
        if _learns(layer):
            lines += _gradients(layer, k)
            k -= 1
    SGD(network.parameters(), learning_rate).step()
    lines += _states("Update", learning, "new_")
    return Trace(lines)


def _learns(layer: Layer) -> bool:
    return any(layer.named_parameters())


def _taken_apart(model: Sequential) -> Sequential:
    """A copy in which each layer computes one thing."""
    network = Sequential(*(piece for layer in leaves(model) for piece in _pieces(layer)))
    network.load_state_dict(dict(zip(network.state_dict(), model.state_dict().values(), strict=True)))
    return network


def _pieces(layer: Layer) -> Iterator[Layer]:
    if isinstance(layer, Affine) and layer.activation:
        yield type(layer)(**(layer.config | {"activation": None}))
        yield layer_of(layer.activation)
    elif not isinstance(layer, Dropout):
        yield type(layer)(**layer.config)


def _named(layer: Layer, i: int, k: int, before: str) -> tuple[str, str]:
    """The name of a layer's output, and how it is computed from the one before."""
    if isinstance(layer, Affine):
        product = f"w{k} {before}" if layer.kernel == "linear" else f"conv2d({before}, w{k})"
        return f"z{k}", f"{product} + b{k}" if layer.bias else product
    if isinstance(layer, Activation):
        return (f"h{k}" if before == f"z{k}" else f"{layer.kernel}_{i}"), f"{layer.kernel}({before})"
    return f"{type(layer).__name__.lower()}_{i}", f"{layer}({before})"


def _back(layer: Layer, grad: Array) -> Array:
    grad_x = layer.backward(grad)
    assert grad_x is not None
    return grad_x


def _gradients(layer: Layer, k: int) -> Iterator[Line]:
    is_linear = isinstance(layer, Affine) and layer.kernel == "linear"
    for name, parameter in layer.named_parameters():
        short = _short(name, k)
        formula = f"delta{k} x^T" if is_linear and name == "weight" else f"dloss/d{short}"
        yield Line("Backward", f"grad_{short}", formula, parameter.grad.copy())


def _states(part: str, layers: list[Layer], prefix: str) -> Iterator[Line]:
    """The parameters and buffers of layers, before or after the update."""
    for k, layer in enumerate(layers, 1):
        learnt = dict(layer.named_parameters())
        for name, value in layer.state_dict().items():
            short = _short(name, k)
            formula = f"{short} - learning_rate grad_{short}" if prefix and name in learnt else ""
            yield Line(part, prefix + short, formula, value)


def _short(name: str, k: int) -> str:
    """The name of the state `name` of layer k."""
    short = name.replace("weight", f"w{k}").replace("bias", f"b{k}")
    return short if short != name else f"{name}{k}"
