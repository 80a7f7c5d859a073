"""Checks of the losses, each in three forms: the loss, its backward, and both at once (`with_grad`).

The losses of y and target compare two arrays of one shape, and have one term per element or per row.
Cross-entropy compares rows of logits with labels or probabilities, and has one term per row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn_ext import checks
from fastnn_ext.checks import Output, wrong

Array = NDArray[Any]

REDUCTIONS = ("mean", "sum", "none")
#: Stands for `ignore_index` where none is given: no row has this label.
NO_LABEL = -1


class Loss(Output):
    """Where a loss goes: one number for reduction "mean" and "sum", the array of its terms for "none"."""

    __slots__ = ("reduction", "size")

    def __init__(
        self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], reduction: str, size: int
    ) -> None:
        super().__init__(out, shape, dtype)
        self.reduction, self.size = reduction, size

    def reduce(self, terms: Any) -> Any:
        """What the caller gets when the unreduced loss is `terms`."""
        return self.fill(terms) if self.reduction == "none" else self.total(np.sum(terms, dtype=np.float64))

    def total(self, total: float) -> Any:
        """What the caller gets when the terms add up to `total`."""
        if self.reduction == "mean":
            total = total / self.size if self.size else math.nan
        return self._dtype.type(total) if self._out is None else self.fill(total)


def _loss(
    name: str,
    out: Any,
    reduction: str,
    shape: tuple[int, ...],
    size: int,
    dtype: np.dtype[Any],
    reads: list[Any],
) -> Loss:
    """The Loss of terms of `shape`, of which `size` count in the mean."""
    shape = shape if reduction == "none" else ()
    if out is not None:
        checks.output(name, out, shape, dtype, reads=reads, in_place=True)
    return Loss(out, shape, dtype, reduction, size)


def _weight(reduction: str, size: int) -> float:
    """What a term counts in the loss."""
    return 1 / size if reduction == "mean" and size else 1.0


def _scale(
    name: str,
    grad_out: Array | float,
    reduction: str,
    shape: tuple[int, ...],
    size: int,
    dtype: np.dtype[Any],
) -> Any:
    """The factor of each term's gradient: a plain array of `shape` for reduction "none", else a number."""
    expected = shape if reduction == "none" else ()
    given = () if isinstance(grad_out, float) else grad_out.shape
    if given != expected:
        checks.has_shape(name, "grad_out", np.asarray(grad_out), expected, f"as reduction is {reduction!r}")
    if reduction == "none":
        return np.asarray(grad_out, checks.compute_dtype(dtype))
    return float(grad_out) * _weight(reduction, size)


def _floats(
    name: str, grad_out: Any, **arguments: Any
) -> tuple[Array | float, list[Any], list[Any], np.dtype[Any]]:
    """grad_out, and `checks.floats` of all; a Python number has no say in the dtype, as in NumPy."""
    if type(grad_out) in (int, float, bool):
        arrays, given, dtype = checks.floats(name, **arguments)
        return checks.number(name, "grad_out", grad_out), arrays, given, dtype
    grad_out = checks.as_real(name, "grad_out", grad_out)
    (grad_out, *arrays), given, dtype = checks.floats(name, grad_out=grad_out, **arguments)
    return grad_out, arrays, given, dtype


def _same_shape(name: str, first: str, y: Array, target: Array) -> None:
    if target.shape != y.shape:
        checks.has_shape(name, "target", target, y.shape, f"the shape of {first}")


def _terms(y: Array, by_row: bool) -> tuple[tuple[int, ...], int]:
    """Shape and size of the unreduced loss; a single number is a row of one."""
    return (y.shape[:-1], math.prod(y.shape[:-1])) if by_row else (y.shape, y.size)


def forward(
    name: str, y: Any, target: Any, reduction: Any, out: Any, *, first: str = "y", by_row: bool = False
) -> tuple[Array, Array, Loss]:
    """Plain y (the caller calls it `first`) and target, and the Loss of one term per element or per row."""
    reduction = checks.choice(name, "reduction", reduction, REDUCTIONS)
    (y, target), given, dtype = checks.floats(name, **{first: y, "target": target})
    _same_shape(name, first, y, target)
    return y, target, _loss(name, out, reduction, *_terms(y, by_row), dtype, given)


def backward(
    name: str,
    grad_out: Any,
    y: Any,
    target: Any,
    reduction: Any,
    out: Any,
    *,
    first: str = "y",
    by_row: bool = False,
) -> tuple[Any, Array, Array, Output]:
    """The factor of each term's gradient (a number or a plain array), plain y and target, and the Output."""
    reduction = checks.choice(name, "reduction", reduction, REDUCTIONS)
    grad_out, (y, target), given, dtype = _floats(name, grad_out, **{first: y, "target": target})
    _same_shape(name, first, y, target)
    scale = _scale(name, grad_out, reduction, *_terms(y, by_row), dtype)
    return scale, y, target, checks.output(name, out, y.shape, dtype, reads=given, in_place=True)


def direct(
    grad_out: Any, y: Any, target: Any, reduction: Any, out: Any, by_row: bool
) -> tuple[float, Array] | None:
    """The factor of all terms' gradients and the array for them, where nothing needs a closer look; else None.

    As `checks.direct`, for what `backward` does with a grad_out that is one number.
    """
    is_scalar = type(grad_out) is np.ndarray and grad_out.ndim == 0
    is_total = type(reduction) is str and reduction in ("mean", "sum")
    if not (is_total and (is_scalar or type(grad_out) is float)):
        return None
    grad = checks.direct(out, y, target)
    if grad is None:
        return None
    owned = is_scalar and grad_out.flags.owndata and grad.flags.owndata
    if is_scalar and (grad_out.dtype is not grad.dtype or grad_out is grad or not owned):
        return None
    return float(grad_out) * _weight(reduction, _terms(grad, by_row)[1]), grad


def with_grad(
    name: str, y: Any, target: Any, reduction: Any, out: Any, *, first: str = "y", by_row: bool = False
) -> tuple[float, Array, Array, Loss, Output]:
    """The factor of each term's gradient, plain y and target, the Loss, and the Output of the gradient."""
    reduction = checks.choice(name, "reduction", reduction, REDUCTIONS)
    (y, target), given, dtype = checks.floats(name, **{first: y, "target": target})
    _same_shape(name, first, y, target)
    loss = _loss(name, None, reduction, *_terms(y, by_row), dtype, given)
    grad = checks.output(name, out, y.shape, dtype, reads=given, in_place=True)
    return _weight(reduction, loss.size), y, target, loss, grad


class Classes(NamedTuple):
    """The arguments of cross-entropy."""

    #: Of the logits as they were given.
    shape: tuple[int, ...]
    #: [rows, classes]
    logits: Array
    #: Labels [rows] of dtype intp, or probabilities [rows, classes].
    target: Array
    #: Rows with this label are left out.
    ignored: int
    #: The part of a row's target that is spread evenly over all classes.
    smoothing: float


class _Case(NamedTuple):
    """What the three forms have in common, once the arguments are known."""

    classes: Classes
    grad_out: Array | float
    reduction: str
    #: Of the unreduced loss.
    shape: tuple[int, ...]
    #: How many of its terms count in the mean.
    size: int
    dtype: np.dtype[Any]
    given: list[Any]


def cross_entropy(
    name: str, logits: Any, target: Any, reduction: Any, ignore_index: Any, label_smoothing: Any, out: Any
) -> tuple[Classes, Loss]:
    """The arguments, and the Loss of one term per row."""
    case = _classes(name, 1.0, logits, target, reduction, ignore_index, label_smoothing)
    return case.classes, _loss(name, out, *case[2:])


def cross_entropy_backward(
    name: str,
    grad_out: Any,
    logits: Any,
    target: Any,
    reduction: Any,
    ignore_index: Any,
    label_smoothing: Any,
    out: Any,
) -> tuple[Any, Classes, Output]:
    """The factor of each row's gradient (a number or a plain array), the arguments, and the Output."""
    case = _classes(name, grad_out, logits, target, reduction, ignore_index, label_smoothing)
    scale = _scale(name, *case[1:6])
    return scale, case.classes, checks.output(name, out, case.classes.shape, case.dtype, reads=case.given)


def cross_entropy_with_grad(
    name: str, logits: Any, target: Any, reduction: Any, ignore_index: Any, label_smoothing: Any, out: Any
) -> tuple[float, Classes, Loss, Output]:
    """The factor of each row's gradient, the arguments, the Loss, and the Output of the gradient."""
    case = _classes(name, 1.0, logits, target, reduction, ignore_index, label_smoothing)
    grad = checks.output(name, out, case.classes.shape, case.dtype, reads=case.given)
    return _weight(case.reduction, case.size), case.classes, _loss(name, None, *case[2:]), grad


def _classes(
    name: str,
    grad_out: Any,
    logits: Any,
    target: Any,
    reduction: Any,
    ignore_index: Any,
    label_smoothing: Any,
) -> _Case:
    reduction = checks.choice(name, "reduction", reduction, REDUCTIONS)
    smoothing = checks.number(name, "label_smoothing", label_smoothing, low=0)
    if smoothing > 1:
        raise wrong(ValueError, name, "label_smoothing", f"is {label_smoothing!r}", "a number from 0 to 1")
    if ignore_index is not None:
        ignore_index = checks.integer(name, "ignore_index", ignore_index, low=-(2**63), high=2**63 - 1)
    target = checks.as_array(name, "target", target)
    arguments = {"logits": logits}
    if target.dtype.kind not in "iu":
        arguments["target"] = _floating(name, target)
    grad_out, (logits, *probabilities), given, dtype = _floats(name, grad_out, **arguments)
    checks.at_least(name, "logits", logits, 1)
    *shape, length = logits.shape
    if length == 0:
        raise wrong(ValueError, name, "logits", f"has shape {logits.shape}", "at least one class")
    size = rows = math.prod(shape)
    if probabilities:
        (target,) = probabilities
        checks.has_shape(name, "target", target, logits.shape, "the shape of logits; labels are integers")
        if ignore_index is not None:
            expected = "None, as target is probabilities"
            raise wrong(ValueError, name, "ignore_index", f"is {ignore_index}", expected)
        target = target.reshape(rows, length)
    else:
        because = "a label per row of logits; probabilities are real numbers"
        checks.has_shape(name, "target", target, tuple(shape), because)
        given = [*given, target]
        size -= _ignored_rows(name, target, length, ignore_index)
        target = checks.plain(target, np.intp).reshape(rows)
    ignored = NO_LABEL if ignore_index is None else ignore_index
    classes = Classes(logits.shape, logits.reshape(rows, length), target, ignored, smoothing)
    return _Case(classes, grad_out, reduction, tuple(shape), size, dtype, given)


def _floating(name: str, target: Array) -> Array:
    """`target` where it can be probabilities."""
    if target.dtype.kind != "f":
        expected = "labels of an integer dtype or probabilities of a float dtype"
        raise wrong(TypeError, name, "target", f"has dtype {target.dtype}", expected)
    return target


def _ignored_rows(name: str, labels: Array, classes: int, ignore_index: int | None) -> int:
    """How many labels are `ignore_index`; an IndexError where another one is out of range."""
    bad = (labels < 0) | (labels >= classes)
    ignored = labels == ignore_index if ignore_index is not None else np.False_
    bad &= ~ignored
    if np.any(bad):
        where = np.unravel_index(np.argmax(bad), labels.shape)
        given = f"has label {labels[where]} at {tuple(map(int, where))}"
        besides = "" if ignore_index is None else f", or {ignore_index}"
        raise wrong(IndexError, name, "target", given, f"labels from 0 to {classes - 1}{besides}")
    return int(np.count_nonzero(ignored))
