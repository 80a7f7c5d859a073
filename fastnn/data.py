"""Data sets, and data in batches. Images are float32 from 0 to 1 in the layout [n, channel, height, width]."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn.init import RandomState
from fastnn.io import FormatError
from fastnn_ext.checks import integer, wrong

Array = NDArray[Any]
Pair = tuple[Array, Array]

__all__ = ["batches", "load_digits", "load_idx", "load_mnist", "one_hot", "split"]

#: Type codes of the IDX format.
IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
#: Deflate makes nothing smaller than this share of its size.
MOST_COMPRESSED = 1032


def load_digits() -> Pair:
    """scikit-learn's 1,797 handwritten digits: images [n, 1, 8, 8] and labels.

    Raises
    ------
    ImportError
        Where scikit-learn, which brings the digits, is not installed.

    References
    ----------
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            "load_digits: the digits come with scikit-learn; pip install 'fastnn-kernels[sklearn]'"
        ) from error
    pixels, labels = load(return_X_y=True)
    return (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.intp)


def load_mnist(folder: str | os.PathLike[str]) -> Pair:
    """All digits of MNIST that are in a folder, training digits first: images [n, 1, 28, 28] and labels.

    Parameters
    ----------
    folder : path
        Of files with their usual names, train-images-idx3-ubyte, t10k-labels-idx1-ubyte, ..., gzipped or not.

    Raises
    ------
    FileNotFoundError
        Where no pair of images and labels is there.
    FormatError
        Where a file is damaged or is not of such images or labels.
    """
    pairs = [pair for part in ("train", "t10k") if (pair := _mnist_part(Path(folder), part))]
    if not pairs:
        expected = "train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], or those of t10k"
        raise FileNotFoundError(f"load_mnist: {os.fspath(folder)} has no digits; expected {expected}")
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return (images / np.float32(255)).astype(np.float32)[:, np.newaxis], labels.astype(np.intp)


def _mnist_part(folder: Path, part: str) -> Pair | None:
    images, labels = (
        next(iter(sorted(folder.glob(f"{part}-{kind}-idx{axes}-ubyte*"))), None)
        for kind, axes in (("images", 3), ("labels", 1))
    )
    if images is None or labels is None:
        return None
    pair = load_idx(images), load_idx(labels)
    if pair[0].shape[1:] != (28, 28) or pair[1].shape != pair[0].shape[:1]:
        raise FormatError(
            f"{images}: images {pair[0].shape} and labels {pair[1].shape} are not those of MNIST"
        )
    return pair


def load_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an IDX file, the format of MNIST, gzipped or not; in native byte order.

    Parameters
    ----------
    path : path
        It may come from anybody: memory is taken only for what a file of its size can hold.

    Raises
    ------
    FormatError
        Where the file is truncated, too long, or no IDX file.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        is_zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if is_zipped:
                with gzip.open(file) as unzipped:
                    return _idx(unzipped, size * MOST_COMPRESSED)
            return _idx(file, size)
        except (ValueError, EOFError, OSError, zlib.error) as error:
            raise FormatError(f"{os.fspath(path)}: not an IDX file: {error}") from error


def _idx(file: IO[bytes] | gzip.GzipFile, most: int) -> Array:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_DTYPES:
        raise ValueError(f"it begins with {magic!r}")
    dtype, axes = np.dtype(IDX_DTYPES[magic[2]]), magic[3]
    lengths = file.read(4 * axes)
    if len(lengths) < 4 * axes or axes > 32:
        raise ValueError(f"it has not the lengths of {axes} axes")
    shape = tuple(np.frombuffer(lengths, ">u4").tolist())
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise ValueError(f"an array of shape {shape} does not fit in it; is it truncated?")
    content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"an array of shape {shape} takes {size} bytes, but it has {len(content)} or more")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def split(
    x: ArrayLike, y: ArrayLike, *, test_share: float = 0.2, random_state: RandomState = None
) -> tuple[Pair, Pair]:
    """Samples to train on and samples to test, (x, y) each, in random order.

    Parameters
    ----------
    x, y : array_like
        One sample, and its target, for each index of the first axis.
    test_share : float
        How much of them to test.
    random_state : int or Generator, optional
        Of the order.
    """
    x, y = _as_long(x, y)
    order = np.random.default_rng(random_state).permutation(len(x))
    tests = round(test_share * len(x))
    return (x[order[tests:]], y[order[tests:]]), (x[order[:tests]], y[order[:tests]])


def batches(
    x: ArrayLike,
    y: ArrayLike,
    *,
    batch_size: int = 32,
    shuffle: bool = False,
    random_state: RandomState = None,
) -> Iterator[Pair]:
    """Samples and targets in batches of `batch_size`; the last has what is left.

    Parameters
    ----------
    x, y : array_like
        One sample, and its target, for each index of the first axis.
    batch_size : int
        Samples in a batch.
    shuffle : bool
        Whether they come in random order.
    random_state : int or Generator, optional
        Of that order.
    """
    x, y = _as_long(x, y)
    batch_size = integer("batches", "batch_size", batch_size, low=1)
    order = np.random.default_rng(random_state).permutation(len(x)) if shuffle else None
    for start in range(0, len(x), batch_size):
        here = slice(start, start + batch_size)
        if order is None:
            yield x[here], y[here]
        else:  # `take` costs a third of an index where samples are small
            yield x.take(order[here], axis=0), y.take(order[here], axis=0)


def one_hot(labels: ArrayLike, classes: int | None = None, *, dtype: DTypeLike = np.float32) -> Array:
    """Rows that are 1 at the label and 0 elsewhere; as many `classes` as the labels need, where it is None."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise wrong(TypeError, "one_hot", "labels", f"has dtype {labels.dtype}", "integers")
    needed = int(labels.max(initial=-1)) + 1
    count = needed if classes is None else integer("one_hot", "classes", classes, low=1)
    if needed > count or labels.min(initial=0) < 0:
        raise wrong(IndexError, "one_hot", "labels", "has one out of range", f"labels from 0 to {count - 1}")
    rows = np.zeros((*labels.shape, count), dtype)
    np.put_along_axis(rows, labels[..., np.newaxis], 1, axis=-1)
    return rows


def _as_long(x: ArrayLike, y: ArrayLike) -> Pair:
    x, y = np.asanyarray(x), np.asanyarray(y)
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise ValueError(f"data: x has shape {x.shape} and y {y.shape}; expected as many targets as samples")
    return x, y
