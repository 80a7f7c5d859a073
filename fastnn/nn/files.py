"""Models in safetensors files: weights as tensors, the architecture as JSON in the metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn import io
from fastnn._described import made
from fastnn.nn import activations, affine, dropout, flatten, norm, pooling, recurrent, sequential
from fastnn.nn._layer import Layer
from fastnn.nn.sequential import Sequential

KEY = "fastnn"
VERSION = 1
#: How deep networks in networks may be in a file: each takes some frames of Python's stack wherever it is used.
MOST_NESTED = 64
#: The only names that a file can call: those without subclasses, for the others are frames.
LAYERS = {
    name: value
    for module in (activations, affine, dropout, flatten, norm, pooling, recurrent, sequential)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Layer)
    if value.__module__ == module.__name__ and not value.__subclasses__()
}


def save(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model to a safetensors file, as a whole or not at all.

    Parameters
    ----------
    model : Sequential
        Of the layers of `fastnn.nn`.
    path : path
        Where to; a file that is there is replaced when the new one is whole.

    Raises
    ------
    TypeError
        Where a layer is not one of `fastnn.nn`, so that `load` would not know it.
    ImportError
        Where safetensors is not installed.
    """
    library = _safetensors("save")
    description = json.dumps({"version": VERSION, "model": _described(model)})
    io.write_whole(path, library.numpy.save(model.state_dict(), {KEY: description}))


def load(path: str | os.PathLike[str]) -> Sequential:
    """The model that `save` wrote, in evaluation mode.

    Parameters
    ----------
    path : path
        Of a safetensors file. It may come from anybody: nothing in it is executed, and memory is taken for what the
        file really holds only.

    Returns
    -------
    Sequential
        A network like the one that was saved.

    Raises
    ------
    FormatError
        Where the file is damaged, or is not a model of fastnn (a `ValueError`).
    OSError
        Where it is not there, or cannot be read.
    ImportError
        Where safetensors is not installed.
    """
    library = _safetensors("load")
    with open(path, "rb"):  # whose errors name the file
        pass
    try:
        with library.safe_open(os.fspath(path), framework="numpy") as file:
            description, names = _description(file.metadata() or {}), file.keys()
            _check_depth(description, len(names))
            model = built(description)
            if not isinstance(model, Sequential):
                raise ValueError(f"the model is a {type(model).__name__}; expected a Sequential")
            _check_tensors(model, {name: file.get_slice(name) for name in names})
            state = {name: file.get_tensor(name) for name in names}
    except (library.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise io.FormatError(f"{os.fspath(path)}: not a model that fastnn can load: {error}") from error
    model.load_state_dict(state)
    return model.eval()


def _safetensors(function: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{function}: files are those of safetensors; pip install 'fastnn-kernels[safetensors]'"
        ) from error
    return safetensors


def _description(metadata: dict[str, str]) -> Any:
    if KEY not in metadata:
        raise ValueError(
            "its metadata say nothing of fastnn; its tensors fit load_state_dict of a model you build"
        )
    description = json.loads(metadata[KEY])
    if not isinstance(description, dict) or description.get("version") != VERSION:
        raise ValueError(f"its description is not of version {VERSION}")
    return description.get("model")


def _check_depth(description: Any, tensors: int) -> None:
    """A ValueError where recurrent layers would be more than the tensors: a number in a file must not take memory."""
    depth = sum(number for number in _depths(description) if isinstance(number, int) and number > 0)
    if depth > tensors:
        raise ValueError(f"num_layers is {depth} in sum, with {tensors} tensors")


def _depths(description: Any, nested: int = 0) -> Iterator[Any]:
    if nested > MOST_NESTED:
        raise ValueError(f"networks in networks are more than {MOST_NESTED} deep")
    if isinstance(description, dict):
        yield description.get("num_layers")
        layers = description.get("layers")
        for layer in layers if isinstance(layers, list) else ():
            yield from _depths(layer, nested + 1)


def _check_tensors(model: Sequential, tensors: dict[str, Any]) -> None:
    """A ValueError where the tensors of a file are not the state of the model; none is read for that."""
    model.check_state({name: tuple(tensor.get_shape()) for name, tensor in tensors.items()})
    for name, one in model._named_state():
        if tensors[name].get_dtype() != f"{one.dtype.kind.upper()}{8 * one.dtype.itemsize}":
            raise ValueError(f"{name} has dtype {tensors[name].get_dtype()}; expected that of {one.dtype}")


def _described(layer: Layer) -> dict[str, Any]:
    if LAYERS.get(type(layer).__name__) is not type(layer):
        raise TypeError(f"save: {layer} is not a layer of fastnn.nn")
    return {"type": type(layer).__name__, **{name: _plain(value) for name, value in layer.config.items()}}


def _plain(value: Any) -> Any:
    """An argument as JSON can say it."""
    if isinstance(value, Layer):
        return _described(value)
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, (str, bool, int, float, type(None))):
        return value
    return value.item() if isinstance(value, np.generic) else np.dtype(value).name


def built(description: Any) -> Layer:
    """The layer that a description names; a ValueError or TypeError says what is wrong with it."""
    if not isinstance(description, dict):
        raise ValueError(f"a layer is described by {description!r}")
    arguments = dict(description)
    layers = arguments.pop("layers", [])
    if not isinstance(layers, list):
        raise ValueError("layers are not a list")
    if "dtype" in arguments and arguments["dtype"] not in ("float32", "float64"):
        raise ValueError(f"unknown dtype {arguments['dtype']!r}")
    arguments = {name: _as_tuple(value) for name, value in arguments.items()}
    layer: Layer = made("layer", LAYERS, arguments, *map(built, layers))
    return layer


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
