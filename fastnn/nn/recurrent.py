"""The recurrent layer, and what takes the last step of a sequence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastnn
from fastnn import init
from fastnn.nn._layer import Layer, Shape, floating
from fastnn.nn._parameters import Parameter
from fastnn_ext.checks import as_real, boolean, choice, integer, wrong
from fastnn_ext.checks.recurrent import NONLINEARITIES

Array = NDArray[Any]


class Cell(NamedTuple):
    """The parameters of one of the layers that lie over each other."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    @property
    def weights(self) -> tuple[Array, Array]:
        return self.weight_ih.data, self.weight_hh.data

    @property
    def bias(self) -> Array:
        """The one bias that the kernel knows."""
        if self.bias_ih is None or self.bias_hh is None:
            return np.zeros(self.weight_hh.shape[:1], self.weight_hh.dtype)
        total: Array = self.bias_ih.data + self.bias_hh.data
        return total

    def add_grad(
        self, grad_weight_ih: Array | None, grad_weight_hh: Array | None, grad_bias: Array | None
    ) -> None:
        for parameter, grad in zip(self, (grad_weight_ih, grad_weight_hh, grad_bias, grad_bias), strict=True):
            if parameter is not None and grad is not None:
                parameter.add_grad(grad)


class RNN(Layer):
    """Recurrent layer of sequences [N, T, in] with the states after each step as output [N, T, h], with `fastnn.rnn`.

    state[t] = f(x[t] @ weight_ih.T + bias_ih + state[t - 1] @ weight_hh.T + bias_hh), where the states before the first
    step are 0. A `Linear` that follows is applied to each step; for one result for a sequence put `Last` in between.

    Parameters
    ----------
    input_size, hidden_size : int
        Inputs of a step, and units.
    num_layers : int
        How many layers lie over each other, each with the states of the one below as inputs.
    nonlinearity : {"tanh", "relu"}
        The function f.
    bias : bool
        Whether there are biases: two, as in PyTorch, of which only the sum counts.
    batch_first : bool
        Whether inputs and outputs are [N, T, ...], which batches of `predict` and `fit` need; else they are
        [T, N, ...], PyTorch's default.
    dtype : float32 or float64
        Of weights, biases and output.

    Notes
    -----
    Weights begin evenly drawn from -1 / sqrt(h) to 1 / sqrt(h), as PyTorch's, and biases at 0.

    References
    ----------
    Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *,
        bias: bool = True,
        batch_first: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.input_size = integer("RNN", "input_size", input_size, low=1)
        self.hidden_size = integer("RNN", "hidden_size", hidden_size, low=1)
        self.nonlinearity = choice("RNN", "nonlinearity", nonlinearity, NONLINEARITIES)
        self.batch_first = boolean("RNN", "batch_first", batch_first)
        bias, dtype = boolean("RNN", "bias", bias), floating("RNN", dtype)
        layers = integer("RNN", "num_layers", num_layers, low=1)
        self._cells = [self._cell(i, bias, dtype) for i in range(layers)]

    def _cell(self, i: int, bias: bool, dtype: np.dtype[Any]) -> Cell:
        units, inputs = self.hidden_size, self.hidden_size if i else self.input_size
        draw = init.uniform(1 / math.sqrt(units))
        cell = Cell(
            Parameter((units, inputs), dtype, draw),
            Parameter((units, units), dtype, draw),
            Parameter((units,), dtype, init.zeros) if bias else None,
            Parameter((units,), dtype, init.zeros) if bias else None,
        )
        for name, parameter in cell._asdict().items():
            setattr(self, f"{name}_l{i}", parameter)
        return cell

    def _forward(self, x: Array, training: bool) -> Array:
        x = as_real("RNN", "input", self._cast(x))
        self.output_shape(x.shape)
        states, saved = self._steps_first(x, "x" if training else None), []
        steps, n = states.shape[:2]
        h0 = np.zeros((n, self.hidden_size), self.dtype)
        for i, cell in enumerate(self._cells):
            inputs, out = states, None
            if training:
                out = self._scratch(f"states{i}", (steps, *h0.shape), h0.dtype)
            states, _ = fastnn.rnn(
                inputs, *cell.weights, cell.bias, h0, nonlinearity=self.nonlinearity, out=out
            )
            saved.append((inputs, states))
        if training:
            self._saved = saved, h0
        return self._turned(states)

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        pairs, h0 = saved
        grad_x: Array | None = self._steps_first(grad.astype(h0.dtype, copy=False), "grad")
        for cell, (inputs, outputs) in zip(reversed(self._cells), reversed(pairs), strict=True):
            needs = (needs_grad_x or cell is not self._cells[0], True, True, cell.bias_ih is not None, False)
            assert grad_x is not None
            grad_x, *gradients, _ = fastnn.rnn_backward(
                grad_x, inputs, *cell.weights, h0, outputs, nonlinearity=self.nonlinearity, needs=needs
            )
            cell.add_grad(*gradients)
        return None if grad_x is None else self._turned(grad_x)

    def _turned(self, array: Array) -> Array:
        """[N, T, ...] for [T, N, ...] and back, where the batch is first."""
        return array.swapaxes(0, 1) if self.batch_first else array

    def _steps_first(self, array: Array, buffer: str | None) -> Array:
        """[T, N, ...] in one piece, which the kernel reads as it is, in the buffer of that name where there is one."""
        turned = self._turned(array)
        if turned.flags.c_contiguous or buffer is None:
            return np.ascontiguousarray(turned)
        copy = self._scratch(buffer, turned.shape, turned.dtype)
        np.copyto(copy, turned)
        return copy

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.input_size:
            expected = f"({'N, T' if self.batch_first else 'T, N'}, {self.input_size})"
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", expected)
        return (*shape[:2], self.hidden_size)


class Last(Layer):
    """The last step of sequences: [N, T, ...] becomes [N, ...].

    Between `RNN` and `Linear`, for one result for a whole sequence.
    """

    def _forward(self, x: Array, training: bool) -> Array:
        self.output_shape(x.shape)
        if training:
            self._saved = x.shape
        return x[:, -1]

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        n, steps, *rest = saved
        # Steps first, as RNN reads it without a copy.
        gradient = self._scratch("grad", (steps, n, *rest), grad.dtype)
        gradient[:-1] = 0
        gradient[-1] = grad
        return gradient.swapaxes(0, 1)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or not shape[1]:
            raise wrong(ValueError, str(self), "input", f"has shape {shape}", "(N, T, ...) with T at least 1")
        return (shape[0], *shape[2:])
