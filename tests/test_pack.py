"""A packed weight gives the bits that the weight gives, cannot be changed, and works wherever the weight does."""

import copy
import pickle
import re
import threading
from itertools import product

import numpy as np
import pytest
from backends import is_there, known_backends

import fastnn
from fastnn import testing

#: Around the sizes of vectors, register tiles and panels of every instruction set.
ROWS = (0, 1, 2, 8, 9, 33)
OUTPUTS = (0, 1, 15, 16, 17, 47, 48, 49, 130)
#: And of blocks of terms: more than 512 are summed in two of them or more.
INPUTS = (0, 1, 5, 129, 512, 513, 1100)

#: x[N, C, H, H], kernels, taps and options: Winograd's form (whole and in parts), products, and neither.
CONVOLUTIONS = (
    (8, 64, 28, 64, 3, {"padding": 1}),
    (4, 40, 27, 70, 3, {}),
    (8, 256, 14, 256, 3, {"padding": 1}),
    (8, 32, 16, 32, 3, {"padding": 1, "stride": 2}),
    (8, 32, 16, 32, 3, {"padding": 1, "groups": 2}),
    (1, 64, 7, 100, 1, {}),
    (4, 330, 5, 48, 1, {}),
    (8, 64, 14, 49, 1, {}),
    (3, 64, 14, 128, 1, {"groups": 2}),
    (2, 64, 14, 128, 1, {"stride": 2}),
    (2, 3, 10, 6, 5, {"dilation": 2}),
    (2, 8, 10, 8, 3, {"groups": 8}),
    (0, 16, 8, 16, 3, {}),
    (2, 16, 8, 0, 3, {}),
)


def is_compiled(backend):
    return backend.id.startswith("cython")


def normal(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_same(result, expected):
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()


def layers(dtype, order="C"):
    for rows, outputs, inputs in product(ROWS, OUTPUTS, INPUTS):
        weight = np.asarray(normal(dtype, outputs, inputs, seed=1), order=order)
        yield normal(dtype, rows, inputs), weight, normal(dtype, outputs, seed=2)


def convolution(dtype, layout, sizes):
    n, c, h, k, r, options = sizes
    x = normal(dtype, n, c, h, h)
    weight = normal(dtype, k, c // options.get("groups", 1), r, r, seed=1)
    if layout == "NHWC":
        x, weight = (np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (x, weight))
    return x, weight, normal(dtype, k, seed=2), {"layout": layout, **options}


def is_arranged(packed):
    """Whether a compiled kernel keeps something with the packed weight."""
    return bool(packed._prepared)


@pytest.mark.backends(having=is_compiled)
@pytest.mark.parametrize("order", ["C", "F"])
def test_linear_gives_the_same_bits(backend, dtype, order):
    arranged = 0
    for x, weight, bias in layers(dtype, order):
        packed = fastnn.pack(weight)
        for b, activation in ((None, None), (bias, "relu")):
            expected = backend.linear(x, weight, b, activation=activation)
            for _ in range(2):
                assert_same(backend.linear(x, packed, b, activation=activation), expected)
        arranged += is_arranged(packed)
    assert arranged


@pytest.mark.backends(having=lambda backend: not is_compiled(backend))
def test_other_backends_take_the_weight(backend, dtype):
    x, weight, bias = normal(dtype, 9, 20), normal(dtype, 7, 20), normal(dtype, 7)
    packed = fastnn.pack(weight)
    assert_same(backend.linear(x, packed, bias), backend.linear(x, weight, bias))
    x, weight, bias, options = convolution(dtype, "NHWC", (2, 3, 6, 4, 3, {"padding": 1}))
    packed = fastnn.pack(weight)
    assert_same(backend.conv2d(x, packed, bias, **options), backend.conv2d(x, weight, bias, **options))
    assert not is_arranged(packed)


@pytest.mark.backends(having=is_compiled)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_conv2d_gives_the_same_bits(backend, dtype, layout):
    arranged = 0
    for sizes in CONVOLUTIONS:
        x, weight, bias, options = convolution(dtype, layout, sizes)
        packed = fastnn.pack(weight)
        for b, activation in ((None, None), (bias, "tanh")):
            expected = backend.conv2d(x, weight, b, activation=activation, **options)
            for _ in range(2):
                assert_same(backend.conv2d(x, packed, b, activation=activation, **options), expected)
        arranged += is_arranged(packed)
    assert arranged >= 2


@pytest.mark.backends(having=is_compiled)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_one_packed_weight_for_all_strides(backend, dtype, layout):
    x, weight, bias, options = convolution(dtype, layout, (4, 64, 28, 96, 3, {"padding": 1}))
    packed = fastnn.pack(weight)
    for stride in (2, 1, 3, 2, 1):
        expected = backend.conv2d(x, weight, bias, stride=stride, **options)
        assert_same(backend.conv2d(x, packed, bias, stride=stride, **options), expected)
    assert len(packed._prepared) == 2


@pytest.mark.backends(having=is_compiled)
@pytest.mark.parametrize("stride", [1, 2])
def test_winograd_falls_back_for_what_is_not_finite(backend, dtype, stride):
    x, weight, bias, options = convolution(
        dtype, "NCHW", (4, 64, 28, 96, 3, {"padding": 1, "stride": stride})
    )
    x[1, 2, 3, 4] = np.inf
    packed = fastnn.pack(weight)
    assert_same(backend.conv2d(x, packed, bias, **options), backend.conv2d(x, weight, bias, **options))
    assert is_arranged(packed)


@pytest.mark.backends(having=is_compiled)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_bit_depends_on_the_number_of_threads(backend, dtype, threads):
    x, weight, bias = normal(dtype, 300, 500), normal(dtype, 700, 500), normal(dtype, 700)
    images, kernels, of_kernels, options = convolution(dtype, "NHWC", CONVOLUTIONS[0])
    points, kernels_of_points, _, _ = convolution(dtype, "NHWC", (16, 64, 28, 256, 1, {}))
    with fastnn.num_threads(1):
        expected = backend.linear(x, weight, bias, activation="tanh")
        of_images = backend.conv2d(images, kernels, of_kernels, **options)
        of_points = backend.conv2d(points, kernels_of_points, layout="NHWC")
    with fastnn.num_threads(threads):
        assert_same(backend.linear(x, fastnn.pack(weight), bias, activation="tanh"), expected)
        assert_same(backend.conv2d(images, fastnn.pack(kernels), of_kernels, **options), of_images)
        assert_same(backend.conv2d(points, fastnn.pack(kernels_of_points), layout="NHWC"), of_points)


@pytest.mark.backends(having=is_compiled)
@pytest.mark.kernels(having=lambda kernel: kernel.name in ("linear", "conv2d"))
def test_the_cases_of_the_contract(backend, dtype, kernel):
    """With each value of each option."""
    function = backend.function(kernel)
    for case in testing.cases(kernel, dtype, sizes=(7,)):
        arguments = {**case.arguments, "weight": fastnn.pack(case.arguments["weight"])}
        ((_, expected),) = testing.call(function, kernel, case.arguments, case.options)
        ((_, result),) = testing.call(function, kernel, arguments, case.options)
        assert_same(result, expected)


def test_one_packed_weight_for_all_backends(dtype):
    weight, x = normal(dtype, 48, 64), normal(dtype, 32, 64)
    packed = fastnn.pack(weight)
    for _ in range(2):
        for backend in filter(is_there, known_backends().values()):
            assert_same(backend.linear(x, packed), backend.linear(x, weight))


def test_mixed_dtypes_are_promoted_as_ever(backend):
    weight, x = normal(np.float32, 48, 64), normal(np.float64, 32, 64)
    packed = fastnn.pack(weight)
    for other in (x, x.astype(np.float16), x[:, ::-1].astype(np.float32), x.astype(int), x.tolist()):
        assert_same(backend.linear(other, packed), backend.linear(other, weight))
    half = weight.astype(np.float16)
    assert_same(
        backend.linear(x.astype(np.float16), fastnn.pack(half)), backend.linear(x.astype(np.float16), half)
    )


def test_out_is_written(backend, dtype):
    weight, x = normal(dtype, 48, 64), normal(dtype, 32, 64)
    out = np.empty((32, 48), dtype)
    assert backend.linear(x, fastnn.pack(weight), out=out) is out
    assert_same(out, backend.linear(x, weight))


def test_errors_are_those_of_the_weight(backend):
    packed, kernels = fastnn.pack(np.ones((3, 4))), fastnn.pack(np.ones((3, 2, 1, 1)))
    for function, x, weight in (
        (backend.linear, np.ones((2, 5)), packed),
        (backend.linear, np.ones((2, 5)), kernels),
        (backend.conv2d, np.ones((1, 3, 2, 2)), kernels),
        (backend.conv2d, np.ones((1, 3, 2, 2)), packed),
    ):
        with pytest.raises(ValueError, match=r"\w+: weight has shape") as expected:
            function(x, np.asarray(weight))
        with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}$"):
            function(x, weight)


def test_other_kernels_take_it_as_an_array(backend):
    grad_out, x, weight = (normal(np.float32, *shape) for shape in ((5, 3), (5, 4), (3, 4)))
    gradients = backend.linear_backward(grad_out, x, fastnn.pack(weight))
    for result, expected in zip(gradients, backend.linear_backward(grad_out, x, weight), strict=True):
        assert_same(result, expected)
    assert_same(backend.relu(fastnn.pack(weight)), backend.relu(weight))
    with pytest.raises(TypeError, match=r"sgd_step: param is a PackedWeight"):
        backend.sgd_step(fastnn.pack(weight), weight, lr=0.1)


@pytest.mark.backends(having=is_compiled)
def test_two_threads_share_it(backend, dtype):
    """Both find it unprepared, many times."""
    weight, x = normal(dtype, 200, 300), normal(dtype, 64, 300)
    expected = backend.linear(x, weight)
    together, wrong = threading.Barrier(2, timeout=60), []

    def body(packed):
        for one in packed:
            together.wait()
            for _ in range(3):
                if backend.linear(x, one).tobytes() != expected.tobytes():
                    wrong.append(one)

    packed = [fastnn.pack(weight) for _ in range(20)]
    threads = [threading.Thread(target=body, args=(packed,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("order", ["C", "F"])
def test_it_is_an_array_like(dtype, order):
    weight = np.asarray(normal(dtype, 3, 5), order=order)
    packed = fastnn.pack(weight)
    assert (packed.shape, packed.dtype, packed.ndim) == (weight.shape, weight.dtype, 2)
    assert (packed.size, packed.nbytes) == (weight.size, weight.nbytes)
    assert_same(np.asarray(packed), weight)
    assert np.asarray(packed).strides == weight.strides
    assert np.asarray(packed, np.float64).dtype == np.float64
    assert np.array(packed).flags.writeable
    assert repr(packed) == f"<PackedWeight of shape (3, 5), {np.dtype(dtype)}>"
    assert isinstance(packed, fastnn.PackedWeight)
    assert fastnn.pack(packed) is packed


def test_it_cannot_be_changed():
    weight = np.ones((3, 5))
    packed = fastnn.pack(weight)
    weight[:] = 2
    array = np.asarray(packed)
    assert (array == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 3
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    for name in ("shape", "_array", "anything"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(packed, name, None)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del packed._array
    assert (array == 1).all()


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda packed: pickle.loads(pickle.dumps(packed))]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_and_copies_are_packed_again(again, order):
    weight, x = np.asarray(normal(np.float32, 48, 64), order=order), normal(np.float32, 32, 64)
    packed = fastnn.pack(weight)
    expected = fastnn.linear(x, packed)
    other = again(packed)
    assert not is_arranged(other)
    assert_same(np.asarray(other), weight)
    assert np.asarray(other).strides == weight.strides
    assert_same(fastnn.linear(x, other), expected)


def test_the_array_rules():
    """Integers, booleans and lists count as float64; strides and byte orders are made plain."""
    for weight in ([[1, 2], [3, 4]], np.arange(4).reshape(2, 2), np.eye(2, dtype=bool)):
        assert_same(np.asarray(fastnn.pack(weight)), np.asarray(weight, np.float64))
    strided = normal(np.float32, 6, 8)[::2, ::-1]
    for weight in (strided, strided.astype(">f4")):
        array = np.asarray(fastnn.pack(weight))
        assert array.flags.c_contiguous
        assert_same(array, np.array(strided))
    assert fastnn.pack(np.ones((2, 2), np.float16)).dtype == np.float16


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (1, 1, 1, 1, 1)])
def test_wrong_shapes(shape):
    with pytest.raises(
        ValueError, match=r"^pack: weight has shape .*; expected 2 dimensions \(linear\) or 4"
    ):
        fastnn.pack(np.ones(shape))


@pytest.mark.parametrize("weight", [np.ones((2, 2), complex), "w", None, [["a"]], np.ma.ones((2, 2))])
def test_wrong_types(weight):
    with pytest.raises(TypeError, match=r"^pack: weight .*; expected"):
        fastnn.pack(weight)


def test_ragged_lists():
    with pytest.raises(ValueError, match=r"^pack: weight is not an array"):
        fastnn.pack([[1, 2], [3]])
