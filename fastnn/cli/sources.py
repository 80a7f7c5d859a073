"""What `--data` names: scikit-learn's digits, a folder of MNIST's files, an .npz or a .csv."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn import data
from fastnn.io import FormatError
from fastnn.nn import CrossEntropyLoss, Loss, MSELoss, Sequential

Array = NDArray[Any]
#: What `--data` can name.
EXPECTED = (
    "digits, a folder of MNIST's files, an .npz with x and y, or a .csv with the label in its last column"
)


class Samples(NamedTuple):
    """Samples, and their labels or targets, which a file may lack."""

    x: Array
    y: Array | None


def load(source: str, model: Sequential | None = None) -> Samples:
    """The samples that `source` names; `model` tells whether a .csv has labels behind its samples."""
    path = Path(source)
    if source == "digits":
        return Samples(*data.load_digits())
    if path.is_dir():
        return Samples(*data.load_mnist(path))
    if not path.exists():
        raise FileNotFoundError(f"--data: there is no {source!r}; expected {EXPECTED}")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".csv":
        return _csv(path, model)
    raise ValueError(f"--data is {source!r}; expected {EXPECTED}")


def targets(y: Array, loss: Loss) -> Array:
    """Labels as they are where the loss takes labels; else rows of numbers."""
    return y if isinstance(loss, CrossEntropyLoss) or y.ndim > 1 else y.reshape(-1, 1)


def outputs(y: Array, loss: Loss) -> int:
    """How many outputs a network needs for such targets."""
    if y.ndim > 1:
        return int(y.shape[-1])
    if y.dtype.kind not in "iu" or not 0 <= y.min() <= y.max() < len(y):
        given = f"y goes from {y.min():g} to {y.max():g}"
        raise ValueError(f"{loss}: {given}; expected labels, whole numbers from 0 on, or another --loss")
    return int(y.max()) + 1


def default_loss(y: Array) -> Loss:
    """Cross-entropy for whole numbers, which are labels; the squared error for others."""
    return CrossEntropyLoss() if y.ndim == 1 and y.dtype.kind in "iu" else MSELoss()


def fits(model: Sequential, shape: tuple[int, ...]) -> bool:
    """Whether the model takes a batch of this shape."""
    try:
        model.output_shape(shape)
    except ValueError:
        return False
    return True


def _npz(path: Path) -> Samples:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("not an .npz file")
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            if "x" not in arrays:
                raise ValueError(f"it has {', '.join(arrays) or 'no array'}; expected x, and y for labels")
            return _checked(arrays["x"], arrays.get("y"))
    except (ValueError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: {error}") from error


def _csv(path: Path, model: Sequential | None) -> Samples:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        has_title = bool(lines) and not all(map(_is_number, lines[0].split(",")))
        if len(lines) <= has_title:
            raise ValueError("it has no samples")
        table = np.loadtxt(lines[has_title:], delimiter=",", ndmin=2)
    except (ValueError, MemoryError) as error:
        raise FormatError(f"{path}: {error}") from error
    columns = table.shape[1]
    if model and not fits(model, (1, columns - 1)) and fits(model, (1, columns)):
        return _checked(table, None)
    x, y = table[:, :-1], table[:, -1]
    return _checked(x, y.astype(np.intp) if ((y == np.floor(y)) & (abs(y) < 2**31)).all() else y)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _checked(x: Array, y: Array | None) -> Samples:
    """Samples of numbers, at least one of them, with as many targets."""
    for name, array in (("x", x), ("y", y)):
        if array is not None and array.dtype.kind not in "fiub":
            raise ValueError(f"{name} has dtype {array.dtype}; expected numbers")
    if x.ndim < 2 or not x.size:
        raise ValueError(f"x has shape {x.shape}; expected samples along the first axis, and at least one")
    if y is not None and (y.ndim < 1 or len(y) != len(x)):
        raise ValueError(f"y has shape {y.shape}, x {x.shape}; expected as many targets as samples")
    return Samples(x, y)
