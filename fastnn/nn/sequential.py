"""Layers one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastnn.nn._layer import Layer, Shape
from fastnn.nn._plan import Stage
from fastnn.nn.activations import Activation, saves_output
from fastnn.nn.affine import Affine
from fastnn.nn.pooling import MaxPool2d

Array = NDArray[Any]


class Sequential(Layer):
    """A network of layers, each applied to the result of the one before.

    An activation that follows a `Linear` or `Conv2d` is computed by that layer's kernel, so it costs no pass of its
    own, whether it is written as a layer or as an argument. Sizes are checked when a shape is first seen.

    Parameters
    ----------
    *layers : Layer
        Each its own: a layer that occurs twice is a ValueError.
    """

    def __init__(self, *layers: Layer) -> None:
        seen: set[int] = set()
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(
                    f"Sequential: layer {i} is a {type(layer).__name__}; expected a layer of fastnn.nn"
                )
            if id(layer) in seen:
                raise ValueError(
                    f"Sequential: layer {i}, {layer}, occurs twice; expected layers of their own"
                )
            seen.add(id(layer))
        self.layers = layers
        self._steps = list(_planned(layers))
        self._first = next(
            (i for i, step in enumerate(self._steps) if any(step.layer.named_parameters())), len(self._steps)
        )
        self._checked: Shape | None = None

    def _forward(self, x: Array, training: bool) -> Array:
        shape = x.shape[1:] or x.shape
        if shape != self._checked:
            self.parameters()  # together, before the layers ask for theirs one by one
            self.output_shape(x.shape)
            self._checked = shape
        for layer, options, in_training in self._steps:
            x = layer._forward(x, training, **options, **in_training)
        if training:
            self._saved = True
        return x

    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        first = 0 if needs_grad_x else self._first  # the first layer with parameters
        gradient: Array | None = grad
        for i in reversed(range(first, len(self._steps))):
            assert gradient is not None
            gradient = self._steps[i].layer._go_back(gradient, needs_grad_x or i > first)
        return gradient

    def _stages(self) -> Iterator[Stage]:
        for layer, options, _ in self._steps:
            yield from layer._stages(**options)

    def output_shape(self, shape: Shape) -> Shape:
        for i, layer in enumerate(self.layers):
            with _naming(i):
                shape = layer.output_shape(shape)
        return shape

    def check_batch(self, shape: Shape) -> None:
        for i, layer in enumerate(self.layers):
            with _naming(i):
                layer.check_batch(shape)
                shape = layer.output_shape(shape)

    def _with_dtype(self, dtype: np.dtype[Any]) -> Self:
        return type(self)(*(layer._with_dtype(dtype) for layer in self.layers))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to a safetensors file; see `nn.load`."""
        from fastnn.nn.files import save

        save(self, path)

    def _rows(self, shape: Shape | None) -> Iterator[tuple[str, str, str]]:
        for layer in self.layers:
            yield from layer._rows(shape)
            shape = layer.output_shape(shape) if shape is not None else None

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Layer:
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


@contextmanager
def _naming(i: int) -> Iterator[None]:
    """Have a ValueError name layer i."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {i}, {error}") from None


def leaves(layer: Layer) -> Iterator[Layer]:
    """The layers that compute, in their order, of networks in networks too."""
    if isinstance(layer, Sequential):
        for one in layer:
            yield from leaves(one)
    else:
        yield layer


class Step(NamedTuple):
    """A layer to be run, with options of its own and those of its forward pass in training."""

    layer: Layer
    options: dict[str, str]
    in_training: dict[str, Any]


def _planned(layers: tuple[Layer, ...]) -> Iterator[Step]:
    """The steps in their order; a `MaxPool2d` undoes the activation before it, if it can."""
    fused = list(_fused(layers))
    undoing: str | None = None
    for (layer, options), (following, _) in zip_longest(fused, fused[1:], fillvalue=(None, {})):
        assert layer is not None
        later = _undone_later(layer, options, following)
        yield Step(layer, options, {"undone": True} if later else {"undoing": undoing} if undoing else {})
        undoing = later


def _fused(layers: tuple[Layer, ...]) -> Iterator[tuple[Layer, dict[str, str]]]:
    """The layers to be run, each with its options; an activation is an option of the layer before it, if it can be."""
    absorbed: Layer | None = None
    for layer, following in zip_longest(layers, layers[1:]):
        if layer is absorbed:
            continue
        name = following.fusable if isinstance(following, Activation) else None
        if name and isinstance(layer, Affine) and layer.activation is None:
            absorbed = following
            yield layer, {"activation": name}
        else:
            yield layer, {}


def _undone_later(layer: Layer, options: dict[str, str], following: Layer | None) -> str | None:
    """The layer's activation, if its derivative follows from its output, of which `following` takes maxima."""
    if not (isinstance(layer, Affine) and isinstance(following, MaxPool2d)):
        return None
    activation = options.get("activation", layer.activation)
    return activation if activation and saves_output(activation) else None
