"""Losses: how far predictions are from their targets, and which way is down.

Each loss has three forms: `NAME(y, target)`, `NAME_backward(grad_out, y, target)` and, in one pass over the
data, `NAME_with_grad(y, target)`. The terms of a loss are accumulated in float64. The gradient is that of the
first argument, the prediction; targets are constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import KERNELS, Draw, Function, kernel, with_sections
from fastnn_ext.checks import losses as checks
from fastnn_ext.checks.losses import REDUCTIONS, Classes

Array = NDArray[Any]

#: A single number, a sample, a mini-batch of digits, one of a thousand classes, and more than a cache holds.
WORKLOADS = {
    f"{n}x{classes}": {"n": n, "classes": classes}
    for n, classes in ((1, 1), (1, 10), (128, 10), (256, 1000), (1000, 1000))
}
OPTIONS = {"reduction": REDUCTIONS}


def _documented(definition: Function) -> Function:
    """Add to the docstring what a loss's backward and its form with gradient take and return."""
    contract = KERNELS[definition.__name__]
    loss = contract.backward_of or contract.with_grad_of
    names = [name for name in contract.signature.parameters if name not in ("grad_out", "out")]
    first, is_backward = names[0], contract.backward_of is not None
    by_class = "ignore_index" in names
    written = "Written and returned when given" if is_backward else "Where the gradient goes"
    memory = "it shares no memory with an argument" if by_class else f"may be `{first}` or `target` itself"
    grad_out = """grad_out : float or array_like
    Gradient with respect to the loss: a number, or an array of the loss's shape for reduction "none". A Python
    number has no say in the dtype."""
    parameters = [
        *([grad_out] if is_backward else []),
        f"{', '.join(names)}\n    As in `{loss}`.",
        f"out : ndarray, the shape of {first}, optional\n    {written}; {memory}.",
    ]
    gradient = f"ndarray, the shape of {first}\n    In the promoted float dtype of the arguments."
    pair = f"""loss : NumPy scalar or ndarray
    As from `{loss}`.
grad : ndarray, the shape of {first}
    As from `{loss}_backward(1, ...)`."""
    errors = "IndexError, ValueError, TypeError" if by_class else "ValueError, TypeError"
    sections = {
        "Parameters": "\n".join(parameters),
        "Returns": gradient if is_backward else pair,
        "Raises": f"{errors}\n    As `{loss}`.",
    }
    definition.__doc__ = with_sections(definition.__doc__, sections)
    return definition


def _numbers(draw: Draw, **_: Any) -> dict[str, Any]:
    n, classes = draw.size("n"), draw.size("classes")
    return {"y": draw.real(n, classes), "target": draw.real(n, classes)}


def _chances(draw: Draw, **_: Any) -> dict[str, Any]:
    n, classes = draw.size("n"), draw.size("classes")
    return {"y": draw.real(n, classes, low=0.02, high=0.98), "target": draw.real(n, classes, low=0, high=1)}


def _log_odds(draw: Draw, **_: Any) -> dict[str, Any]:
    n, classes = draw.size("n"), draw.size("classes")
    x = draw.real(n, classes, low=-6, high=6)
    # Where sigmoid(logits) = target, the gradient is rounding alone: keep away.
    logits = x + np.copysign(x.dtype.type(2), x)
    return {"logits": logits, "target": (draw.labels(n, classes, classes=3) / 2).astype(x.dtype)}


def _classified(
    draw: Draw, reduction: str = "mean", ignore_index: int | None = None, **_: Any
) -> dict[str, Any]:
    """Labels; for reduction "sum" probabilities, away from softmax(logits), where gradients vanish."""
    n, classes = draw.size("n"), draw.size("classes", 1)
    logits = draw.real(n, classes, low=-0.5, high=0.5) + draw.real(n, 1, low=-50, high=50)
    labels = draw.labels(n, classes=classes)
    if reduction != "sum" or ignore_index is not None:
        return {"logits": logits, "target": labels}
    probabilities = np.full((n, classes), 0.1 / classes)
    probabilities[np.arange(n), labels] += 0.9
    return {"logits": logits, "target": probabilities.astype(logits.dtype)}


@kernel(example=_numbers, options=OPTIONS, workloads=WORKLOADS)
def mse_loss(y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None) -> Any:
    """Mean squared error, the mean of (y - target)^2 over all elements.

    Parameters
    ----------
    y : array_like, any shape
        Prediction.
    target : array_like, the shape of y
        What it should be.
    reduction : {"mean", "sum", "none"}
        Whether the squares are averaged, added, or returned as they are.
    out : ndarray, optional
        Of the loss's shape: that of y for reduction "none", else (). Written and returned when given; for
        "none" it may be `y` or `target` itself.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of y for reduction "none"
        In the promoted float dtype of the arguments. The mean of no elements is NaN.

    Raises
    ------
    ValueError
        Where the shapes differ, the reduction is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    Squares are taken in the compute dtype and accumulated in float64.
    """
    y, target, loss = checks.forward("mse_loss", y, target, reduction, out)
    return loss.reduce(np.square(y - target))


@_documented
@kernel(backward_of="mse_loss", workloads=WORKLOADS)
def mse_loss_backward(
    grad_out: ArrayLike,
    y: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    out: Array | None = None,
) -> Array:
    """Gradient of `mse_loss` with respect to y.

    grad_out * 2 (y - target), divided by y.size for the mean.
    """
    scale, y, target, grad = checks.backward("mse_loss_backward", grad_out, y, target, reduction, out)
    return grad.fill((y - target) * (2 * scale))


@_documented
@kernel(with_grad_of="mse_loss", workloads=WORKLOADS)
def mse_loss_with_grad(
    y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[Any, Array]:
    """`mse_loss` and its gradient with respect to y, in one pass."""
    scale, y, target, loss, grad = checks.with_grad("mse_loss_with_grad", y, target, reduction, out)
    difference = y - target
    return loss.reduce(np.square(difference)), grad.fill(difference * (2 * scale))


def _half_squares(difference: Array) -> Array:
    """Half the sum of squares of each row, in float64."""
    return np.asarray(0.5 * np.sum(np.square(difference), axis=-1, dtype=np.float64))


@kernel(example=_numbers, options=OPTIONS, workloads=WORKLOADS)
def half_squared_error(
    y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Any:
    """Half squared error, E = 1/2 sum (y - target)^2 over the last axis, averaged over the others.

    Parameters
    ----------
    y : array_like, shape (..., outputs)
        Prediction, one sample per row; a single number is a sample of one output.
    target : array_like, the shape of y
        What it should be.
    reduction : {"mean", "sum", "none"}
        Whether the errors of the samples are averaged, added, or returned as they are.
    out : ndarray, optional
        Of the loss's shape: (...) for reduction "none", else (). Written and returned when given.

    Returns
    -------
    NumPy scalar, or ndarray of shape (...) for reduction "none"
        In the promoted float dtype of the arguments. The mean of no samples is NaN.

    Raises
    ------
    ValueError
        Where the shapes differ, the reduction is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    Squares are taken in the compute dtype and accumulated in float64.
    """
    y, target, loss = checks.forward("half_squared_error", y, target, reduction, out, by_row=True)
    return loss.reduce(_half_squares(y - target))


@_documented
@kernel(backward_of="half_squared_error", workloads=WORKLOADS)
def half_squared_error_backward(
    grad_out: ArrayLike,
    y: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    out: Array | None = None,
) -> Array:
    """Gradient of `half_squared_error` with respect to y.

    grad_out * (y - target), divided by the number of samples for the mean.
    """
    name = "half_squared_error_backward"
    scale, y, target, grad = checks.backward(name, grad_out, y, target, reduction, out, by_row=True)
    if reduction == "none" and y.ndim:
        scale = scale[..., np.newaxis]
    return grad.fill((y - target) * scale)


@_documented
@kernel(with_grad_of="half_squared_error", workloads=WORKLOADS)
def half_squared_error_with_grad(
    y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[Any, Array]:
    """`half_squared_error` and its gradient with respect to y, in one pass."""
    name = "half_squared_error_with_grad"
    scale, y, target, loss, grad = checks.with_grad(name, y, target, reduction, out, by_row=True)
    difference = y - target
    return loss.reduce(_half_squares(difference)), grad.fill(difference * scale)


#: Logarithms are cut off here, so that a certain but wrong prediction has a finite loss.
LOG_MIN = -100
#: The least y (1 - y) that gradients are divided by.
VARIANCE_MIN = 1e-12


def _surprise(y: Array, target: Array) -> Array:
    """-(target log y + (1 - target) log(1 - y)), logarithms cut off."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_y, log_not_y = np.maximum(np.log(y), LOG_MIN), np.maximum(np.log1p(-y), LOG_MIN)
        terms: Array = -(target * log_y + (1 - target) * log_not_y)
    return terms


def _surprise_slope(y: Array, target: Array) -> Array:
    slopes: Array = (y - target) / np.maximum(y * (1 - y), VARIANCE_MIN)
    return slopes


@kernel(example=_chances, options=OPTIONS, ulp=8, workloads=WORKLOADS)
def binary_cross_entropy(
    y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Any:
    """Binary cross-entropy, the mean of -(target log y + (1 - target) log(1 - y)) over all elements.

    Parameters
    ----------
    y : array_like, any shape
        Predicted probability, from 0 to 1; elsewhere the loss is NaN, as the logarithm is.
    target : array_like, the shape of y
        Probability, as a rule 0 or 1; any number is taken.
    reduction : {"mean", "sum", "none"}
        Whether the terms are averaged, added, or returned as they are.
    out : ndarray, optional
        Of the loss's shape: that of y for reduction "none", else (). Written and returned when given; for
        "none" it may be `y` or `target` itself.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of y for reduction "none"
        In the promoted float dtype of the arguments. The mean of no elements is NaN.

    Raises
    ------
    ValueError
        Where the shapes differ, the reduction is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    See Also
    --------
    binary_cross_entropy_with_logits : Exact where the sigmoid rounds to 0 or 1.

    Notes
    -----
    Logarithms below -100 count as -100, as in PyTorch, so that the loss is finite at y = 0 and y = 1. Terms
    are accumulated in float64.
    """
    y, target, loss = checks.forward("binary_cross_entropy", y, target, reduction, out)
    return loss.reduce(_surprise(y, target))


@_documented
@kernel(backward_of="binary_cross_entropy", ulp=8, workloads=WORKLOADS)
def binary_cross_entropy_backward(
    grad_out: ArrayLike,
    y: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    out: Array | None = None,
) -> Array:
    """Gradient of `binary_cross_entropy` with respect to y.

    grad_out * (y - target) / max(y (1 - y), 1e-12), divided by y.size for the mean.
    """
    name = "binary_cross_entropy_backward"
    scale, y, target, grad = checks.backward(name, grad_out, y, target, reduction, out)
    return grad.fill(_surprise_slope(y, target) * scale)


@_documented
@kernel(with_grad_of="binary_cross_entropy", ulp=8, workloads=WORKLOADS)
def binary_cross_entropy_with_grad(
    y: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[Any, Array]:
    """`binary_cross_entropy` and its gradient with respect to y, in one pass."""
    name = "binary_cross_entropy_with_grad"
    scale, y, target, loss, grad = checks.with_grad(name, y, target, reduction, out)
    return loss.reduce(_surprise(y, target)), grad.fill(_surprise_slope(y, target) * scale)


def _logit_surprise(logits: Array, target: Array, decay: Array) -> Array:
    """|x| times the weight of the less likely side, plus log1p(e^-|x|), where `decay` = e^-|x|."""
    unlikely = np.where(logits < 0, target, 1 - target)
    with np.errstate(invalid="ignore"):
        linear = np.where(unlikely == 0, 0, np.abs(logits) * unlikely)
    terms: Array = linear + np.log1p(decay)
    return terms


def _logit_slope(logits: Array, target: Array, decay: Array) -> Array:
    """sigmoid(x) - target over the common denominator, which does not cancel where target is 0 or 1."""
    rest = 1 - target
    slopes: Array = np.where(logits < 0, decay * rest - target, rest - target * decay) / (1 + decay)
    return slopes


@kernel(example=_log_odds, options=OPTIONS, ulp=8, workloads=WORKLOADS)
def binary_cross_entropy_with_logits(
    logits: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> Any:
    """Binary cross-entropy of sigmoid(logits), at any logits.

    The mean of max(x, 0) - x target + log(1 + exp(-|x|)) over all elements x of the logits, computed as
    |x| w + log1p(exp(-|x|)) where w is target for x < 0, else 1 - target.

    Parameters
    ----------
    logits : array_like, any shape
        Pre-activation of the sigmoid: log(p / (1 - p)).
    target : array_like, the shape of logits
        Probability, as a rule 0 or 1; any number is taken.
    reduction : {"mean", "sum", "none"}
        Whether the terms are averaged, added, or returned as they are.
    out : ndarray, optional
        Of the loss's shape: that of logits for reduction "none", else (). Written and returned when given;
        for "none" it may be `logits` or `target` itself.

    Returns
    -------
    NumPy scalar, or ndarray of the shape of logits for reduction "none"
        In the promoted float dtype of the arguments. The mean of no elements is NaN.

    Raises
    ------
    ValueError
        Where the shapes differ, the reduction is unknown, or `out` does not fit.
    TypeError
        Where an argument is not an array of real numbers.

    Notes
    -----
    Neither overflows nor cancels: at infinite logits the loss is 0 where they agree with a target of 0 or 1,
    else infinite. Terms are accumulated in float64.
    """
    name = "binary_cross_entropy_with_logits"
    logits, target, loss = checks.forward(name, logits, target, reduction, out, first="logits")
    return loss.reduce(_logit_surprise(logits, target, np.exp(-np.abs(logits))))


@_documented
@kernel(backward_of="binary_cross_entropy_with_logits", ulp=8, floor=0.01, workloads=WORKLOADS)
def binary_cross_entropy_with_logits_backward(
    grad_out: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    out: Array | None = None,
) -> Array:
    """Gradient of `binary_cross_entropy_with_logits` with respect to the logits.

    grad_out * (sigmoid(logits) - target), divided by logits.size for the mean.

    Where target is 0 or 1, the relative error stays small however sure the prediction is.
    """
    name = "binary_cross_entropy_with_logits_backward"
    scale, logits, target, grad = checks.backward(
        name, grad_out, logits, target, reduction, out, first="logits"
    )
    return grad.fill(_logit_slope(logits, target, np.exp(-np.abs(logits))) * scale)


@_documented
@kernel(with_grad_of="binary_cross_entropy_with_logits", ulp=8, floor=0.01, workloads=WORKLOADS)
def binary_cross_entropy_with_logits_with_grad(
    logits: ArrayLike, target: ArrayLike, *, reduction: str = "mean", out: Array | None = None
) -> tuple[Any, Array]:
    """`binary_cross_entropy_with_logits` and its gradient with respect to the logits, in one pass."""
    name = "binary_cross_entropy_with_logits_with_grad"
    scale, logits, target, loss, grad = checks.with_grad(name, logits, target, reduction, out, first="logits")
    decay = np.exp(-np.abs(logits))
    return (
        loss.reduce(_logit_surprise(logits, target, decay)),
        grad.fill(_logit_slope(logits, target, decay) * scale),
    )


def _below_maximum(logits: Array) -> Array:
    """Logits minus the largest of their row, so that exp cannot overflow; infinite ones share the maximum."""
    top = logits.max(axis=1, keepdims=True)
    endless = np.isposinf(top)
    if endless.any():
        logits = np.where(endless, np.where(np.isposinf(logits), 0, -np.inf), logits).astype(logits.dtype)
        top[endless] = 0
    with np.errstate(invalid="ignore"):  # a row of minus infinities has no softmax: NaN
        shifted: Array = logits - top
    return shifted


class _Labelled:
    """Cross-entropy of rows with labels.

    A label's own exponential is kept apart from the `rest` of the sum: p - 1 = -rest / (own + rest) then has
    no cancellation, nor has -log p, however sure a right prediction is.
    """

    def __init__(self, classes: Classes) -> None:
        self.smoothing = classes.smoothing
        self.kept = classes.target != classes.ignored
        self.at = np.arange(len(classes.target)), np.where(self.kept, classes.target, 0)
        self.shifted = _below_maximum(classes.logits)
        self.exps = np.exp(self.shifted)
        self.own = self.exps[self.at]
        self.exps[self.at] = 0
        self.rest = self.exps.sum(axis=1)

    def terms(self) -> Array:
        """The loss of each row, log(sum exp(x)) minus the expected x."""
        expected = self.shifted[self.at]
        if self.smoothing:
            even = self.smoothing * self.shifted.mean(axis=1)
            expected = even + (1 - self.smoothing) * expected if self.smoothing < 1 else even
        return np.where(self.kept, np.log1p(self.rest + (self.own - 1)) - expected, 0)

    def slopes(self, scale: Any) -> Array:
        """scale * (softmax(x) - target)."""
        scale = np.where(self.kept, scale, 0).astype(self.rest.dtype)
        factor = scale / (self.own + self.rest)
        grad: Array = self.exps * factor[:, np.newaxis]
        grad[self.at] = -self.rest * factor
        if self.smoothing:
            grad -= (scale * (self.smoothing / grad.shape[1]))[:, np.newaxis]
            grad[self.at] += scale * self.smoothing
        grad[~self.kept] = 0
        return grad


class _Expected:
    """Cross-entropy of rows with probabilities."""

    def __init__(self, classes: Classes) -> None:
        self.target = classes.target
        if classes.smoothing:
            self.target = (1 - classes.smoothing) * self.target + classes.smoothing / self.target.shape[1]
        self.shifted = _below_maximum(classes.logits)
        self.exps = np.exp(self.shifted)
        self.sum = self.exps.sum(axis=1)
        self.mass = self.target.sum(axis=1)

    def terms(self) -> Array:
        """The loss of each row, sum target (log(sum exp(x)) - x); an impossible class adds nothing."""
        with np.errstate(invalid="ignore"):
            products = self.target * self.shifted
        products[self.target == 0] = 0
        terms: Array = self.mass * np.log(self.sum) - products.sum(axis=1)
        return terms

    def slopes(self, scale: Any) -> Array:
        """scale * (softmax(x) sum(target) - target)."""
        scale = np.broadcast_to(np.asarray(scale, self.sum.dtype), self.sum.shape)[:, np.newaxis]
        grad: Array = self.exps * (self.mass / self.sum)[:, np.newaxis]
        grad -= self.target
        grad *= scale
        return grad


def _rows(classes: Classes) -> _Labelled | _Expected:
    return _Labelled(classes) if classes.target.ndim == 1 else _Expected(classes)


@kernel(
    example=_classified,
    options={**OPTIONS, "ignore_index": (None, 0, -100), "label_smoothing": (0.0, 0.1)},
    ulp=8,
    workloads=WORKLOADS,
)
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0,
    out: Array | None = None,
) -> Any:
    """Cross-entropy of softmax(logits) with labels or probabilities, averaged over samples.

    A sample's loss is -sum_j q_j log softmax(x)_j, where q is the target's distribution: 1 at the label, or
    the probabilities given, then mixed with the even distribution by label smoothing.

    Parameters
    ----------
    logits : array_like, shape (..., classes)
        Unnormalised log probabilities. Classes run along the last axis, whatever the rank (PyTorch's are on
        axis 1).
    target : array_like
        Either labels, integers from 0 to classes - 1 in shape (...), or probabilities, real numbers in the
        shape of logits. Rows of probabilities need not sum to 1.
    reduction : {"mean", "sum", "none"}
        Whether the samples' losses are averaged, added, or returned as they are.
    ignore_index : int, optional
        Samples with this label, which may be out of range, have loss 0 and gradient 0 and do not count in the
        mean.
    label_smoothing : float, from 0 to 1
        q becomes (1 - label_smoothing) q + label_smoothing / classes.
    out : ndarray, optional
        Of the loss's shape: (...) for reduction "none", else (). Written and returned when given; it shares
        no memory with an argument.

    Returns
    -------
    NumPy scalar, or ndarray of shape (...) for reduction "none"
        In the float dtype of logits, promoted with that of probabilities. The mean of no samples is NaN.

    Raises
    ------
    IndexError
        Where a label is out of range.
    ValueError
        Where shapes do not fit, there are no classes, an option is out of range, or `out` does not fit.
    TypeError
        Where logits are not an array of real numbers, or target is neither integers nor floats.

    Notes
    -----
    The largest logit is subtracted before exponentials are taken, so nothing overflows. A logit of minus
    infinity is an impossible class, one of infinity takes all (a share, where there are several), a row of
    minus infinities is NaN. Samples' losses are accumulated in float64.

    References
    ----------
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (label smoothing).
    """
    classes, loss = checks.cross_entropy(
        "cross_entropy", logits, target, reduction, ignore_index, label_smoothing, out
    )
    return loss.reduce(_rows(classes).terms().reshape(classes.shape[:-1]))


@_documented
@kernel(backward_of="cross_entropy", ulp=32, floor=0.01, workloads=WORKLOADS)
def cross_entropy_backward(
    grad_out: ArrayLike,
    logits: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0,
    out: Array | None = None,
) -> Array:
    """Gradient of `cross_entropy` with respect to the logits.

    grad_out * (softmax(logits) sum(q) - q), divided by the number of samples that count for the mean.

    With labels and no smoothing, the relative error stays small however sure the prediction is.
    """
    scale, classes, grad = checks.cross_entropy_backward(
        "cross_entropy_backward", grad_out, logits, target, reduction, ignore_index, label_smoothing, out
    )
    return grad.fill(_rows(classes).slopes(np.ravel(scale)).reshape(classes.shape))


@_documented
@kernel(with_grad_of="cross_entropy", ulp=32, floor=0.01, workloads=WORKLOADS)
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0,
    out: Array | None = None,
) -> tuple[Any, Array]:
    """`cross_entropy` and its gradient with respect to the logits, in one pass."""
    scale, classes, loss, grad = checks.cross_entropy_with_grad(
        "cross_entropy_with_grad", logits, target, reduction, ignore_index, label_smoothing, out
    )
    rows = _rows(classes)
    return (
        loss.reduce(rows.terms().reshape(classes.shape[:-1])),
        grad.fill(rows.slopes(scale).reshape(classes.shape)),
    )
