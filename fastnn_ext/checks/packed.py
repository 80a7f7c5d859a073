"""Weights that are used again and again: a copy that nobody changes, and what a backend makes of it once."""

from __future__ import annotations

from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn_ext import checks

#: Of what the kernels take weights of: a dense layer and a 2-D convolution.
_NDIMS = (2, 4)
#: Bytes: vectors that do not cross lines of the cache are read faster.
_ALIGNMENT = 64


class PackedWeight:
    """The weight of a layer, packed for inference; made by `fastnn.pack`.

    It cannot be changed, may be used by several threads at once, and is an array-like: `np.asarray` gives the weight
    back, read-only. Pickles and copies hold the weight alone.

    Attributes
    ----------
    shape, dtype, ndim, size, nbytes
        Those of the weight.
    """

    __slots__ = ("__weakref__", "_array", "_given", "_prepared")

    #: The weight, for the kernels; never written.
    _array: NDArray[Any]
    #: The same memory, read-only, for everybody else.
    _given: NDArray[Any]
    #: What compiled modules make of it on first use, by their names; an entry stays as it is.
    _prepared: dict[str, Any]

    def __init__(self, weight: Any) -> None:
        array = checks.as_real("pack", "weight", weight)
        if array.ndim not in _NDIMS:
            expected = "2 dimensions (linear) or 4 (conv2d)"
            raise checks.wrong(ValueError, "pack", "weight", f"has shape {array.shape}", expected)
        dtype = checks.float_dtype([array])
        # What a kernel reads as it is keeps its order, for the order of the sums may depend on it.
        flags = array.flags
        is_transpose = array.ndim == 2 and flags.f_contiguous and flags.aligned and not flags.c_contiguous
        is_read = type(weight) is np.ndarray and array.dtype == dtype
        order: Literal["C", "F"] = "F" if is_read and is_transpose else "C"
        memory = np.empty(array.size * dtype.itemsize + _ALIGNMENT, np.uint8)
        copy = np.ndarray(array.shape, dtype, memory, -memory.ctypes.data % _ALIGNMENT, order=order)
        copy[...] = array
        memory.flags.writeable = False
        # Numba would compile its kernels again for a read-only array.
        object.__setattr__(self, "_array", copy)
        object.__setattr__(self, "_given", copy.view())
        self._given.flags.writeable = False
        object.__setattr__(self, "_prepared", {})

    def _refuse(self, *_: Any) -> NoReturn:
        raise AttributeError("a PackedWeight cannot be changed")

    __setattr__ = __delattr__ = _refuse

    @property
    def shape(self) -> tuple[int, ...]:
        return self._given.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._given.dtype

    @property
    def ndim(self) -> int:
        return self._given.ndim

    @property
    def size(self) -> int:
        return self._given.size

    @property
    def nbytes(self) -> int:
        return self._given.nbytes

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._given, dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[NDArray[Any]]]:
        return type(self), (self._given,)

    def __repr__(self) -> str:
        return f"<PackedWeight of shape {self.shape}, {self.dtype}>"


def unpacked(weight: Any) -> Any:
    """The array of a packed weight; anything else as it is."""
    return weight._array if type(weight) is PackedWeight else weight
