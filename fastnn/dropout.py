"""Dropout and its backward, whose mask follows from a seed and a counter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import Draw, kernel
from fastnn_ext.checks import dropout as checks

Array = NDArray[Any]

#: Single elements, the units of a mini-batch, and more than a cache holds.
WORKLOADS = {f"n={length:.0e}".replace("e+0", "e"): {"n": length} for length in (1, 10**4, 10**6)}
_OPTIONS = {"p": (0.5, 0.0, 0.9, 1.0), "seed": (1, 0, 2**64 - 1), "offset": (0, 7, 2**64 - 3)}

_STEP, _FIRST, _SECOND = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _elements(draw: Draw, **_: Any) -> dict[str, Any]:
    return {"x": draw.real(draw.size("n"))}


def _kept(shape: tuple[int, ...], p: float, seed: int, offset: int) -> NDArray[np.bool_]:
    """The mask: True with probability 1 - p, by the words of SplitMix64 from `offset` on."""
    z = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(offset)
    z = z * _STEP + np.uint64(checks.scrambled(seed))
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    z ^= z >> np.uint64(31)
    kept: NDArray[np.bool_] = (z >> np.uint64(11)) >= checks.threshold(p)
    return kept.reshape(shape)


@kernel(example=_elements, options=_OPTIONS, ulp=2, workloads=WORKLOADS)
def dropout(x: ArrayLike, *, p: float = 0.5, seed: int, offset: int = 0, out: Array | None = None) -> Array:
    """Elements set to zero at random, the others multiplied by 1 / (1 - p), so that the mean stays.

    Which ones are kept depends on seed, offset and the position of an element alone, and is the same in all versions
    and on all machines, for any dtype and any number of threads. This is for training; there is nothing to do else.

    Parameters
    ----------
    x : array_like, any shape
        Inputs; element i is the one at position i in C order.
    p : float
        The probability of an element to be dropped, from 0 to 1.
    seed : int
        Chooses the stream of random words, from 0 to 2^64 - 1.
    offset : int
        Where in the stream the first element is, from 0 to 2^64 - 1; after the last word the first follows. A call
        that adds the number of elements so far has a mask of its own.
    out : ndarray, the shape of x, optional
        Written and returned when given; may be `x` itself.

    Returns
    -------
    ndarray, the shape of x
        In the float dtype of `x`.

    Raises
    ------
    ValueError
        Where p, seed or offset is out of its range, or `out` does not fit.
    TypeError
        Where `x` is not an array of real numbers, or an option not of its type.

    Notes
    -----
    Word i is mix(mix(seed + g) + (offset + i) g) with the mixing function and the odd constant g of SplitMix64; an
    element is kept where the upper 53 bits, as a fraction, are at least p. What is dropped is 0, also where it was NaN
    or infinite. Exact but for the rounding of 1 / (1 - p) and of the product.

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014; Steele, Lea
    and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    """
    x, p, seed, offset, y = checks.dropout("dropout", p, seed, offset, out, x=x)
    return y.fill(_masked(x, p, seed, offset))


@kernel(backward_of="dropout", ulp=2, workloads=WORKLOADS)
def dropout_backward(
    grad_out: ArrayLike, *, p: float = 0.5, seed: int, offset: int = 0, out: Array | None = None
) -> Array:
    """Gradient of a loss with respect to the x of `dropout`: that of the result, through the same mask.

    The mask is made again from seed and offset, so nothing has to be saved.

    Parameters
    ----------
    grad_out : array_like, any shape
        Gradient with respect to the result of `dropout`.
    p, seed, offset
        Those of the forward pass; see `dropout`.
    out : ndarray, the shape of grad_out, optional
        Written and returned when given; may be `grad_out` itself.

    Returns
    -------
    ndarray, the shape of grad_out
        In the float dtype of `grad_out`.

    Raises
    ------
    ValueError, TypeError
        As `dropout`.
    """
    grad_out, p, seed, offset, grad = checks.dropout(
        "dropout_backward", p, seed, offset, out, grad_out=grad_out
    )
    return grad.fill(_masked(grad_out, p, seed, offset))


def _masked(x: Array, p: float, seed: int, offset: int) -> Array:
    kept = _kept(x.shape, p, seed, offset)
    y: Array = np.where(kept, x * x.dtype.type(checks.scale(p)), x.dtype.type(0))
    return y
