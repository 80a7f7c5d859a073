"""Losses by Numba; see `fastnn/losses.py` for what each function is. Terms are added up as in `_reductions.py`."""

import math

import numpy as np

from fastnn_ext.checks import losses as checks
from fastnn_ext.njit import _calls as calls
from fastnn_ext.njit import _vmath as vmath
from fastnn_ext.njit._options import njit
from fastnn_ext.njit._reductions import PIECE, add, inlined, largest, reordered, sum_of
from fastnn_ext.njit.activations import real

# ----------------------------------------------------------------------------------------------------
# Losses of y and target: the term of an element, and its slope in y


@inlined
def _square(y, target):
    return (y - target) * (y - target)


@inlined
def _square_slope(y, target):
    return (y - target) + (y - target)


@inlined
def _half_square(y, target):
    return real(0.5, y) * ((y - target) * (y - target))


@inlined
def _half_square_slope(y, target):
    return y - target


@inlined
def _at_least(x, low):
    limit = real(low, x)
    return limit if x < limit else x


@inlined
def _surprise(y, target):
    log_y, log_not_y = _at_least(vmath.log(y), -100), _at_least(vmath.log1p(-y), -100)
    return -(target * log_y + (real(1, y) - target) * log_not_y)


@inlined
def _surprise_slope(y, target):
    return (y - target) / _at_least(y * (real(1, y) - y), 1e-12)


@inlined
def _logit_surprise(x, target):
    likely = real(1, x) - target
    unlikely = target if x < 0 else likely
    product = abs(x) * unlikely
    linear = real(0, x) if unlikely == 0 else product
    return linear + vmath.log1p(vmath.exp(-abs(x)))


@inlined
def _logit_slope(x, target):
    decay, rest = vmath.exp(-abs(x)), real(1, x) - target
    below, above = decay * rest - target, rest - target * decay
    return (below if x < 0 else above) / (real(1, x) + decay)


@inlined
def _divisor(y, reduction, by_row):
    """By what the sum of the terms is divided; zero where that takes a closer look."""
    if not calls.is_array(y) or calls.size(y) == 0:
        return 0
    rows = calls.rows(y) if by_row else calls.size(y)
    return rows if calls.is_mean(reduction) else 1 if calls.is_sum(reduction) else 0


@inlined
def _is_factor(grad_out, out):
    """Whether grad_out is one number for all terms, which `out` does not overwrite."""
    if calls.is_array(grad_out):
        apart = calls.is_none(out) or (calls.is_array(out) and calls.are_separate(grad_out, out))
        return calls.ndim(grad_out) == 0 and apart
    factor = calls.number(grad_out)
    return factor == factor


@inlined
def _factor(grad_out):
    return np.float64(calls.elements(grad_out)[0]) if calls.is_array(grad_out) else calls.number(grad_out)


class _Pair:
    """A loss of y and target; all is compiled at its first use.

    The loops are over flat arrays; the calls are of reductions to one number, of arrays that need no closer look.
    """

    def __init__(self, term, slope, by_row=False):
        @reordered
        def sum_of_piece(y, target):
            total = 0.0
            for i in range(y.size):
                total += term(y[i], target[i])
            return total

        @njit
        def gradient(y, target, scale, grad):
            scale = y.dtype.type(scale)
            for i in range(y.size):
                grad[i] = slope(y[i], target[i]) * scale

        @njit
        def total(y, target):
            total, excess = 0.0, 0.0
            for start in range(0, y.size, PIECE):
                end = start + PIECE
                total, excess = add(total, excess, sum_of_piece(y[start:end], target[start:end]))
            return total

        @njit
        def both(y, target, scale, grad):
            """The sum of the terms; each piece is still in the cache when its gradient is taken."""
            total, excess = 0.0, 0.0
            for start in range(0, y.size, PIECE):
                end = start + PIECE
                total, excess = add(total, excess, sum_of_piece(y[start:end], target[start:end]))
                gradient(y[start:end], target[start:end], scale, grad[start:end])
            return total

        @njit
        def terms(y, target, result):
            for i in range(y.size):
                result[i] = term(y[i], target[i])

        @njit
        def row_totals(y, target, totals):
            length = y.size // max(totals.size, 1)
            for row in range(totals.size):
                start, end = row * length, (row + 1) * length
                totals[row] = total(y[start:end], target[start:end])

        @njit
        def gradient_each(y, target, scales, grad):
            for i in range(y.size):
                grad[i] = slope(y[i], target[i]) * scales[i]

        @njit
        def row_gradients(y, target, scales, grad):
            length = y.size // max(scales.size, 1)
            for row in range(scales.size):
                start, end = row * length, (row + 1) * length
                gradient(y[start:end], target[start:end], scales[row], grad[start:end])

        @njit(nogil=False)
        def loss_call(y, target, reduction, out):
            divisor = _divisor(y, reduction, by_row)
            if divisor == 0 or not (calls.are_alike(y, target) and calls.is_none(out)):
                return calls.nothing(y)
            state = calls.release(y)
            loss = total(calls.elements(y), calls.elements(target))
            calls.take_back(state)
            return calls.scalar(loss / divisor, y)

        @njit(nogil=False)
        def gradient_call(grad_out, y, target, reduction, out):
            divisor = _divisor(y, reduction, by_row)
            if divisor == 0 or not _is_factor(grad_out, out):
                return calls.nothing(y)
            grad = calls.result_of_two(y, target, out)
            if not calls.is_nothing(grad):
                scale, arrays = _factor(grad_out) * (1 / divisor), (calls.elements(y), calls.elements(target))
                state = calls.release(y)
                gradient(*arrays, scale, calls.elements(grad))
                calls.take_back(state)
            return grad

        @njit(nogil=False)
        def both_call(y, target, reduction, out):
            divisor = _divisor(y, reduction, by_row)
            grad = calls.result_of_two(y, target, out) if divisor != 0 else calls.nothing(y)
            if calls.is_nothing(grad):
                return grad
            arrays = calls.elements(y), calls.elements(target)
            state = calls.release(y)
            loss = both(*arrays, 1 / divisor, calls.elements(grad))
            calls.take_back(state)
            return calls.as_tuple((calls.scalar(loss / divisor, y), grad))

        self.loss_call, self.gradient_call = calls.Call(loss_call), calls.Call(gradient_call)
        self.both_call = calls.Call(both_call)
        self.total, self.terms, self.row_totals = total, terms, row_totals
        self.gradient, self.gradient_each, self.row_gradients = gradient, gradient_each, row_gradients
        self.both = both


_MSE = _Pair(_square, _square_slope)
_HALF = _Pair(_half_square, _half_square_slope, by_row=True)
_CHANCE = _Pair(_surprise, _surprise_slope)
_LOGIT = _Pair(_logit_surprise, _logit_slope)


def _terms_or_total(pair, y, target, loss):
    y, target = y.ravel(), target.ravel()
    if loss.reduction != "none":
        return loss.total(pair.total(y, target))
    each = pair.row_totals if pair is _HALF else pair.terms
    each(y, target, loss.array.ravel())
    return loss.deliver()


def _gradient(pair, scale, y, target, output):
    y, target, grad = y.ravel(), target.ravel(), output.array.ravel()
    if isinstance(scale, float):
        pair.gradient(y, target, scale, grad)
    else:
        each = pair.row_gradients if pair is _HALF else pair.gradient_each
        each(y, target, scale.ravel(), grad)
    return output.deliver()


def _loss(pair, name, y, target, reduction, out, **named):
    loss = pair.loss_call(y, target, reduction, out)
    if loss is not None:
        return loss
    y, target, loss = checks.forward(name, y, target, reduction, out, **named)
    pair.loss_call.prepare(y)
    return _terms_or_total(pair, y, target, loss)


def _backward(pair, name, grad_out, y, target, reduction, out, **named):
    grad = pair.gradient_call(grad_out, y, target, reduction, out)
    if grad is not None:
        return grad
    scale, y, target, output = checks.backward(name, grad_out, y, target, reduction, out, **named)
    pair.gradient_call.prepare(y)
    return _gradient(pair, scale, y, target, output)


def _with_grad(pair, name, y, target, reduction, out, **named):
    both = pair.both_call(y, target, reduction, out)
    if both is not None:
        return both
    scale, y, target, loss, output = checks.with_grad(name, y, target, reduction, out, **named)
    pair.both_call.prepare(y)
    if loss.reduction == "none":
        return _terms_or_total(pair, y, target, loss), _gradient(pair, scale, y, target, output)
    total = pair.both(y.ravel(), target.ravel(), scale, output.array.ravel())
    return loss.total(total), output.deliver()


def mse_loss(y, target, *, reduction="mean", out=None):
    return _loss(_MSE, "mse_loss", y, target, reduction, out)


def mse_loss_backward(grad_out, y, target, *, reduction="mean", out=None):
    return _backward(_MSE, "mse_loss_backward", grad_out, y, target, reduction, out)


def mse_loss_with_grad(y, target, *, reduction="mean", out=None):
    return _with_grad(_MSE, "mse_loss_with_grad", y, target, reduction, out)


def half_squared_error(y, target, *, reduction="mean", out=None):
    return _loss(_HALF, "half_squared_error", y, target, reduction, out, by_row=True)


def half_squared_error_backward(grad_out, y, target, *, reduction="mean", out=None):
    name = "half_squared_error_backward"
    return _backward(_HALF, name, grad_out, y, target, reduction, out, by_row=True)


def half_squared_error_with_grad(y, target, *, reduction="mean", out=None):
    return _with_grad(_HALF, "half_squared_error_with_grad", y, target, reduction, out, by_row=True)


def binary_cross_entropy(y, target, *, reduction="mean", out=None):
    return _loss(_CHANCE, "binary_cross_entropy", y, target, reduction, out)


def binary_cross_entropy_backward(grad_out, y, target, *, reduction="mean", out=None):
    return _backward(_CHANCE, "binary_cross_entropy_backward", grad_out, y, target, reduction, out)


def binary_cross_entropy_with_grad(y, target, *, reduction="mean", out=None):
    return _with_grad(_CHANCE, "binary_cross_entropy_with_grad", y, target, reduction, out)


def binary_cross_entropy_with_logits(logits, target, *, reduction="mean", out=None):
    name = "binary_cross_entropy_with_logits"
    return _loss(_LOGIT, name, logits, target, reduction, out, first="logits")


def binary_cross_entropy_with_logits_backward(grad_out, logits, target, *, reduction="mean", out=None):
    name = "binary_cross_entropy_with_logits_backward"
    return _backward(_LOGIT, name, grad_out, logits, target, reduction, out, first="logits")


def binary_cross_entropy_with_logits_with_grad(logits, target, *, reduction="mean", out=None):
    name = "binary_cross_entropy_with_logits_with_grad"
    return _with_grad(_LOGIT, name, logits, target, reduction, out, first="logits")


# ----------------------------------------------------------------------------------------------------
# Cross-entropy. Arrays are flat; short rows are taken many at once, so that the exponentials run over a long
# piece. x - max and then its exponential stand in the gradient's place, or in a buffer where no gradient is
# wanted, which an array without elements says.


@njit
def _open_row(x, e):
    """x - max to e; an infinite x takes all."""
    top = largest(x)
    zero, infinite = real(0, top), real(math.inf, top)
    for j in range(x.size):
        below = x[j] - top
        e[j] = zero if x[j] == infinite else below


@njit
def _close_labelled(e, label, smoothing, scale, has_grad):
    """The sum of the exponentials, less 1; the gradient in their place.

    The label's own is kept apart: neither log p nor p - 1 = -rest / sum cancels for p near 1.
    """
    own = np.float64(e[label])
    e[label] = 0
    rest = sum_of(e)
    if has_grad:
        even, factor = smoothing / e.size, scale / (own + rest)
        # Without smoothing, nothing may not become NaN where the scale is infinite.
        shift, kept = (scale * even, scale * (smoothing - even)) if smoothing != 0 else (0.0, 0.0)
        factor_of_all, even_of_all = e.dtype.type(factor), e.dtype.type(shift)
        for j in range(e.size):
            e[j] = e[j] * factor_of_all - even_of_all
        e[label] = kept - rest * factor
    return rest + (own - 1)


@njit
def _close_expected(e, q, mass, smoothing, scale, has_grad):
    """The sum of the exponentials, less 1; the gradient in their place."""
    total = sum_of(e)
    if has_grad:
        ratio, factor = e.dtype.type(mass / total), e.dtype.type(scale)
        hard, even = e.dtype.type(1 - smoothing), e.dtype.type(smoothing / e.size)
        for j in range(e.size):
            e[j] = (e[j] * ratio - (hard * q[j] + even)) * factor
    return total - 1


@reordered
def _sum_products(q, e, smoothing):
    """The sum of p * e, p = (1 - smoothing) q + smoothing / length; where p = 0, e may be minus infinity."""
    hard, even = e.dtype.type(1 - smoothing), e.dtype.type(smoothing / e.size)
    total = 0.0
    for j in range(e.size):
        p = hard * q[j] + even
        product = p * e[j]
        total += real(0, p) if p == 0 else product
    return total


@njit
def _finish(terms, mass, excess, expected):
    """The losses of some rows."""
    for i in range(terms.size):
        terms[i] = mass[i] * vmath.log1p(excess[i]) - expected[i]


@njit
def _labelled_rows(x, labels, ignored, smoothing, scales, terms, grad):
    """The loss of each row to `terms`, its gradient to `grad`."""
    length = x.size // max(labels.size, 1)
    together = max(1, PIECE // max(length, 1))
    buffer = np.empty(0 if grad.size else together * length, x.dtype)
    excess, expected, mass = np.zeros(together), np.zeros(together), np.ones(together)
    for first in range(0, labels.size, together):
        rows = min(together, labels.size - first)
        base = first * length
        e = grad[base : base + rows * length] if grad.size else buffer[: rows * length]
        for i in range(rows):
            label, row = labels[first + i], e[i * length : (i + 1) * length]
            _open_row(x[base + i * length : base + (i + 1) * length], row)
            expected[i] = 0
            if label != ignored:
                if smoothing < 1:
                    expected[i] = (1 - smoothing) * row[label]
                if smoothing > 0:
                    expected[i] += smoothing / length * sum_of(row)
        vmath.exponentials(e)
        for i in range(rows):
            label, row = labels[first + i], e[i * length : (i + 1) * length]
            scale = scales[first + i if scales.size > 1 else 0]
            if label == ignored:
                excess[i] = 0
                row[:] = 0
            else:
                excess[i] = _close_labelled(row, label, smoothing, scale, grad.size > 0)
        _finish(terms[first : first + rows], mass, excess, expected)


@njit
def _expected_rows(x, q, count, smoothing, scales, terms, grad):
    """The loss of each of `count` rows to `terms`, its gradient to `grad`."""
    length = x.size // max(count, 1)
    together = max(1, PIECE // max(length, 1))
    buffer = np.empty(0 if grad.size else together * length, x.dtype)
    excess, expected, mass = np.zeros(together), np.zeros(together), np.ones(together)
    for first in range(0, count, together):
        rows = min(together, count - first)
        base = first * length
        e = grad[base : base + rows * length] if grad.size else buffer[: rows * length]
        for i in range(rows):
            start, end = base + i * length, base + (i + 1) * length
            row = e[i * length : (i + 1) * length]
            _open_row(x[start:end], row)
            expected[i] = _sum_products(q[start:end], row, smoothing)
            mass[i] = (1 - smoothing) * sum_of(q[start:end]) + smoothing
        vmath.exponentials(e)
        for i in range(rows):
            start, end = base + i * length, base + (i + 1) * length
            row = e[i * length : (i + 1) * length]
            scale = scales[first + i if scales.size > 1 else 0]
            excess[i] = _close_expected(row, q[start:end], mass[i], smoothing, scale, grad.size > 0)
        _finish(terms[first : first + rows], mass, excess, expected)


@inlined
def _are_classes(logits, target, reduction, ignore_index):
    """Whether each row of logits has a label, none is left out, and nothing needs a closer look."""
    if not calls.is_array(logits) or calls.ndim(logits) == 0 or calls.size(logits) == 0:
        return False
    axes = calls.ndim(logits) - 1
    if not (calls.are_labels(target) and calls.ndim(target) == axes and calls.is_brief(logits)):
        return False
    known = calls.is_none(ignore_index) and (calls.is_mean(reduction) or calls.is_sum(reduction))
    return (
        known and calls.have_rows_alike(logits, target, axes) and _are_within(target, calls.last_of(logits))
    )


@inlined
def _are_within(target, classes):
    """Whether all labels are."""
    bad = 0
    for label in calls.labels(target):
        bad += (label < 0) | (label >= classes)
    return bad == 0


@inlined
def _is_part(smoothing):
    return 0 <= smoothing <= 1


@inlined
def _gradient_place(logits, target, out):
    """A new array or `out` for the gradient; nothing where `out` needs a closer look."""
    if calls.is_none(out):
        return calls.new_like(logits)
    fits = calls.are_alike(logits, out) and calls.is_writable(out) and calls.are_separate(logits, out)
    return calls.done(out) if fits and calls.are_apart(out, target) else calls.nothing(logits)


@njit(nogil=False)
def _classes_call(logits, target, reduction, ignore_index, label_smoothing, out):
    smoothing = calls.number(label_smoothing)
    ready = _is_part(smoothing) and calls.is_none(out)
    if not (ready and _are_classes(logits, target, reduction, ignore_index)):
        return calls.nothing(logits)
    rows, x = calls.labels(target), calls.elements(logits)
    terms = np.empty(rows.size)
    _labelled_rows(x, rows, checks.NO_LABEL, smoothing, np.ones(1), terms, x[:0])
    return calls.scalar(sum_of(terms) / (rows.size if calls.is_mean(reduction) else 1), logits)


@njit(nogil=False)
def _classes_gradient_call(grad_out, logits, target, reduction, ignore_index, label_smoothing, out):
    smoothing = calls.number(label_smoothing)
    if not (_is_part(smoothing) and _are_classes(logits, target, reduction, ignore_index)):
        return calls.nothing(logits)
    if not _is_factor(grad_out, out):
        return calls.nothing(logits)
    grad = _gradient_place(logits, target, out)
    if not calls.is_nothing(grad):
        rows = calls.labels(target)
        share = 1 / rows.size if calls.is_mean(reduction) else 1.0
        scales = np.full(1, _factor(grad_out) * share)
        x, result = calls.elements(logits), calls.elements(grad)
        _labelled_rows(x, rows, checks.NO_LABEL, smoothing, scales, np.empty(0), result)
    return grad


@njit(nogil=False)
def _classes_both_call(logits, target, reduction, ignore_index, label_smoothing, out):
    smoothing = calls.number(label_smoothing)
    if not (_is_part(smoothing) and _are_classes(logits, target, reduction, ignore_index)):
        return calls.nothing(logits)
    grad = _gradient_place(logits, target, out)
    if calls.is_nothing(grad):
        return grad
    rows = calls.labels(target)
    count = rows.size if calls.is_mean(reduction) else 1
    terms, scales = np.empty(rows.size), np.full(1, 1 / count)
    x, result = calls.elements(logits), calls.elements(grad)
    _labelled_rows(x, rows, checks.NO_LABEL, smoothing, scales, terms, result)
    return calls.as_tuple((calls.scalar(sum_of(terms) / count, logits), grad))


_CLASSES, _CLASSES_GRADIENT, _CLASSES_BOTH = (
    calls.Call(call) for call in (_classes_call, _classes_gradient_call, _classes_both_call)
)


def _rows(classes, scale, terms, grad):
    logits, scales = classes.logits.ravel(), np.array(scale, np.float64, ndmin=1).ravel()
    if classes.target.ndim == 1:
        _labelled_rows(logits, classes.target, classes.ignored, classes.smoothing, scales, terms, grad)
    else:
        probabilities = classes.target.ravel()
        _expected_rows(logits, probabilities, len(classes.target), classes.smoothing, scales, terms, grad)


def _terms(classes, loss):
    """Where the losses of the rows go."""
    return loss.array.ravel() if loss.reduction == "none" else np.empty(len(classes.target))


def _loss_of(loss, terms):
    return loss.deliver() if loss.reduction == "none" else loss.total(sum_of(terms))


def cross_entropy(logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None):
    arguments = logits, target, reduction, ignore_index, label_smoothing, out
    value = _CLASSES(*arguments)
    if value is not None:
        return value
    classes, loss = checks.cross_entropy("cross_entropy", *arguments)
    _CLASSES.prepare(classes.logits)
    terms = _terms(classes, loss)
    _rows(classes, 1.0, terms, np.empty(0, classes.logits.dtype))
    return _loss_of(loss, terms)


def cross_entropy_backward(
    grad_out, logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None
):
    arguments = grad_out, logits, target, reduction, ignore_index, label_smoothing, out
    grad = _CLASSES_GRADIENT(*arguments)
    if grad is not None:
        return grad
    scale, classes, output = checks.cross_entropy_backward("cross_entropy_backward", *arguments)
    _CLASSES_GRADIENT.prepare(classes.logits)
    _rows(classes, scale, np.empty(0), output.array.ravel())
    return output.deliver()


def cross_entropy_with_grad(
    logits, target, *, reduction="mean", ignore_index=None, label_smoothing=0, out=None
):
    arguments = logits, target, reduction, ignore_index, label_smoothing, out
    both = _CLASSES_BOTH(*arguments)
    if both is not None:
        return both
    scale, classes, loss, output = checks.cross_entropy_with_grad("cross_entropy_with_grad", *arguments)
    _CLASSES_BOTH.prepare(classes.logits)
    terms = _terms(classes, loss)
    _rows(classes, scale, terms, output.array.ravel())
    return _loss_of(loss, terms), output.deliver()
