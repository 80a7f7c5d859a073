"""Batches, splits, one-hot rows, and files of digits."""

import gzip
import struct
from importlib.util import find_spec

import numpy as np
import pytest

from fastnn import data
from fastnn.io import FormatError


def idx(array, code=0x08):
    """The bytes of an IDX file."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_batches():
    x, y = np.arange(10).reshape(5, 2), np.arange(5)
    parts = list(data.batches(x, y, batch_size=2))
    assert [len(one) for one, _ in parts] == [2, 2, 1]
    assert np.shares_memory(parts[0][0], x)
    shuffled = list(data.batches(x, y, batch_size=2, shuffle=True, random_state=0))
    order = np.concatenate([targets for _, targets in shuffled])
    assert sorted(order) == list(range(5))
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in shuffled]), x[order])
    with pytest.raises(ValueError, match="as many targets"):
        list(data.batches(x, y[:-1]))
    with pytest.raises(ValueError, match="batch_size"):
        list(data.batches(x, y, batch_size=0))


def test_split():
    x = np.arange(10)
    (train, _), (test, targets) = data.split(x, x, test_share=0.3, random_state=0)
    assert len(test) == 3
    assert sorted([*train, *test]) == list(range(10))
    np.testing.assert_array_equal(test, targets)


def test_one_hot():
    assert data.one_hot([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert data.one_hot(np.array([[1]]), 2, dtype=np.float64).dtype == np.float64
    assert data.one_hot(np.zeros(0, int), 3).shape == (0, 3)
    for labels in ([3], [-1]):
        with pytest.raises(IndexError, match="from 0 to 2"):
            data.one_hot(labels, 3)
    with pytest.raises(TypeError, match="float64"):
        data.one_hot([0.5])


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_digits():
    images, labels = data.load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    assert set(labels) == set(range(10))


def test_idx_files(tmp_path):
    path = tmp_path / "array"
    for array, code in ((np.arange(6, dtype=">i4").reshape(2, 3), 0x0C), (np.ones((2, 0), ">f8"), 0x0E)):
        for content in (idx(array, code), gzip.compress(idx(array, code))):
            path.write_bytes(content)
            loaded = data.load_idx(path)
            np.testing.assert_array_equal(loaded, array)
            assert loaded.dtype.isnative


GOOD = idx(np.arange(100, dtype=np.uint8).reshape(4, 25))
BAD_IDX = {
    "empty": b"",
    "a pickle": b"\x80\x04K\x01.",
    "unknown type": b"\0\0\x0a\1" + GOOD[4:],
    "no lengths": GOOD[:6],
    "truncated": GOOD[:-1],
    "too long": GOOD + b"\0",
    "enormous": b"\0\0\x08\x03" + b"\xff" * 12 + GOOD,
    "truncated gzip": gzip.compress(GOOD)[:-12],
    "enormous in gzip": gzip.compress(b"\0\0\x0e\x04" + b"\xff" * 16 + GOOD),
    "damaged gzip": gzip.compress(GOOD)[:30] + b"\xff" * 60,
    "not gzip": b"\x1f\x8b" + GOOD,
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_bad_idx_files_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD_IDX[name])
    with pytest.raises(FormatError, match=f"{name}: not an IDX file"):
        data.load_idx(path)


def test_mnist(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match="has no digits"):
        data.load_mnist(tmp_path)
    for part, count in (("t10k", 3), ("train", 5)):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.full(count, count)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images.astype(np.uint8))))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    x, y = data.load_mnist(tmp_path)
    assert x.shape == (8, 1, 28, 28)
    assert x.dtype == np.float32
    assert x.max() <= 1
    assert y.tolist() == [5] * 5 + [3] * 3
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(FormatError, match="not those of MNIST"):
        data.load_mnist(tmp_path)
