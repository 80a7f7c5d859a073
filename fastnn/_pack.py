"""Weights packed for inference."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastnn_ext.checks.packed import PackedWeight

__all__ = ["PackedWeight", "pack"]


def pack(weight: ArrayLike) -> PackedWeight:
    """Pack the weight of a layer that is called again and again.

    `linear` and `conv2d` take the result for their `weight` and give the same, to the last bit, as for the array; the
    compiled ones are faster where they would arrange the weight anew in each call. That is so for mini-batches in
    `linear`, for 3 x 3 kernels over many channels with a stride of 1 in `conv2d`, and for kernels of one pixel with
    channels last; elsewhere the array is used as it is.

    Parameters
    ----------
    weight : array_like, shape (out, in), (K, C, R, S) or (K, R, S, C)
        The weight of `linear` or of `conv2d`, in either layout. It is copied: later changes of the array are not
        seen. Integers, booleans and lists become float64, as they count for every kernel.

    Returns
    -------
    PackedWeight
        The weight, which cannot be changed and which several threads can use at once. It has the weight's `shape`,
        `dtype`, `ndim`, `size` and `nbytes`, and `np.asarray` gives the weight back, read-only; so other functions,
        such as `linear_backward`, take it as an array too.

    Raises
    ------
    ValueError
        Where the weight has neither 2 nor 4 dimensions.
    TypeError
        Where it is not an array of real numbers of at most 64 bits.

    Notes
    -----
    A compiled kernel arranges the weight when it is first called with it and keeps the result: as much memory again
    for `linear` and kernels of one pixel, four times as much for 3 x 3 kernels. The form of a product does not depend
    on packing, only whether it reads the weight rearranged; where the dtype of the other arguments differs from the
    weight's, it is promoted as ever and nothing is gained.

    Examples
    --------
    >>> packed = fastnn.pack(weight)
    >>> y = fastnn.linear(x, packed, bias, activation="relu")
    """
    return weight if isinstance(weight, PackedWeight) else PackedWeight(weight)
