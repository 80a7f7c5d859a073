"""Convolutions in tiles keep the promised error where pixels, channels or weights are of very different size.

A tile's transform mixes 6 by 6 pixels, and a kernel's its nine weights: what is much larger than the terms of
a sum must not show in it.
"""

from functools import lru_cache

import numpy as np
import pytest

import fastnn
from fastnn import KERNELS, testing

of_cython = pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
#: Of tiles enough for sums over two parts of them.
PIXELS = {"n": 4, "c": 64, "h": 28, "w": 27, "k": 48, "r": 3, "s": 3}


def plain(images):
    return images


def sparse(images):
    """Few pixels are not zero, and few channels of these."""
    return np.where(np.random.default_rng(0).random(images.shape) < 0.02, images, 0)


def patches(images):
    """Most of the image is zero."""
    patched = np.zeros_like(images)
    patched[:, :, 5:9, 6:17] = images[:, :, 5:9, 6:17]
    return patched


def zeros(images):
    return np.zeros_like(images)


def half(images):
    """As after a relu."""
    return np.maximum(images, 0)


def channels(images):
    return images * 10.0 ** np.random.default_rng(0).uniform(-3, 3, (1, images.shape[1], 1, 1))


def pixels(images):
    return images * 10.0 ** np.random.default_rng(0).uniform(-3, 3, (images.shape[0], 1, *images.shape[2:]))


def spikes(size, channel=slice(None)):
    def change(images):
        spiked = np.ones_like(images)
        spiked[:, channel, 12::8, 11::8] = size
        return spiked

    return change


def beside(size):
    """One pixel of one channel, beside numbers as after a relu."""

    def change(images):
        spiked = half(images)
        spiked[0, 0, 12, 13] = size
        return spiked

    return change


IMAGES = (
    zeros,
    half,
    sparse,
    patches,
    channels,
    pixels,
    spikes(1e6),
    spikes(1e6, 0),
    spikes(100, 0),
    beside(30),
    beside(1e3),
)


def one_weight(weight):
    """A huge weight beside tiny ones in each kernel."""
    changed = weight * 1e-3
    changed[:, 3, 0, 2] = 1e3
    return changed


def one_kernel(weight):
    changed = weight.copy()
    changed[5, 2, 1, 1] = 1e6
    return changed


def centers(weight):
    """Kernels of one pixel."""
    changed = np.zeros_like(weight)
    changed[:, :, 1, 1] = weight[:, :, 1, 1]
    return changed


def pruned(weight):
    return np.where(np.random.default_rng(0).random(weight.shape) < 0.7, 0, weight)


def peaked(weight):
    return weight**7


def tiny(weight):
    return weight * 1e-25


WEIGHTS = (zeros, one_weight, one_kernel, centers, pruned, peaked, tiny)
CHANGES = [
    *((images, plain) for images in IMAGES),
    *((half, weight) for weight in WEIGHTS),
    (beside(1e3), one_kernel),
]


@lru_cache
def changed_case(name, layout, number, stride=1):
    """Its arguments in float32; grad_out is changed as the images are."""
    images, weights = CHANGES[number]
    options = {"padding": 1, "layout": layout, "stride": stride}
    case = testing.make_case(KERNELS[name], np.float32, sizes=PIXELS, options=options)
    for argument, value in case.arguments.items():
        if argument != "bias":
            first = value.transpose(0, 3, 1, 2) if layout == "NHWC" else value
            first = (weights if argument == "weight" else images)(first.copy())
            case.arguments[argument] = np.ascontiguousarray(
                first.transpose(0, 2, 3, 1) if layout == "NHWC" else first, np.float32
            )
    if "bias" in case.arguments:
        case.arguments["bias"] = np.zeros_like(case.arguments["bias"])
    return case


@of_cython
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("name", "stride"), [("conv2d", 1), ("conv2d", 2), ("conv2d_backward", 1)])
@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_the_promised_error(backend, name, stride, layout, number):
    case = changed_case(name, layout, number, stride)
    testing.check_parity(backend.function(case.kernel), case)


def alive(*shares):
    """After a relu: of the last channels those shares of the numbers are left, of the others half."""

    def change(images):
        random, thinned = np.random.default_rng(0), half(images)
        for channel, share in enumerate(shares, images.shape[1] - len(shares)):
            thinned[:, channel] *= random.random(thinned[:, channel].shape) < share
        return thinned

    return change


def one_pixel(images):
    """One kernel is alive at one pixel, another one nowhere."""
    changed = half(images)
    changed[:, 2:4] = 0
    changed[1, 3, 27, 0] = 3
    return changed


def one_image(images):
    """Some channels are alive in one image only, and there in a corner."""
    changed = half(images)
    changed[1:, 5:15] = changed[:, 5:10, 4:] = 0
    return changed


NEARLY_DEAD = alive(0, 0.0005, 0.001, *(0.02,) * 8)
KERNEL_GRADIENTS = [
    (half, zeros),
    (zeros, half),
    (half, one_pixel),
    (one_pixel, half),
    (half, NEARLY_DEAD),
    (NEARLY_DEAD, half),
    (NEARLY_DEAD, NEARLY_DEAD),
    (one_image, one_image),
    (half, alive(*(0.01,) * 30)),
    (alive(*(0.01,) * 60), NEARLY_DEAD),
    (alive(*(0.5,) * 30), alive(*(0.1,) * 30)),
    (half, spikes(1e6, slice(7))),
    (spikes(1e3, slice(40)), half),
]


@lru_cache
def gradient_case(number, layout, dtype, groups=1):
    """The gradient of the kernels alone; x and grad_out are changed, each in its way."""
    options = {"padding": 1, "layout": layout, "groups": groups, "needs": (False, True, False)}
    case = testing.make_case(KERNELS["conv2d_backward"], dtype, sizes=PIXELS, options=options)
    for argument, change in zip(("x", "grad_out"), KERNEL_GRADIENTS[number], strict=True):
        value = case.arguments[argument]
        first = change((value.transpose(0, 3, 1, 2) if layout == "NHWC" else value).copy())
        last = first.transpose(0, 2, 3, 1) if layout == "NHWC" else first
        case.arguments[argument] = np.ascontiguousarray(last, dtype)
    return case


@of_cython
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("number", range(len(KERNEL_GRADIENTS)))
def test_gradients_of_kernels_that_are_hardly_alive(backend, number, layout, dtype):
    case = gradient_case(number, layout, dtype)
    testing.check_parity(backend.function(case.kernel), case)


@of_cython
@pytest.mark.parametrize("number", range(len(KERNEL_GRADIENTS)))
def test_gradients_of_groups_that_are_hardly_alive(backend, number):
    case = gradient_case(number, "NCHW", np.float32, 2)
    testing.check_parity(backend.function(case.kernel), case)


@of_cython
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_gradient_of_a_pixel_is_exact(backend, layout):
    """As is that of none, beside kernels that sum over many."""
    case = gradient_case(KERNEL_GRADIENTS.index((half, one_pixel)), layout, np.float32)
    _, grad_weight, _ = backend.conv2d_backward(**case.arguments, **case.options)
    x = case.arguments["x"]
    if layout == "NHWC":
        x, grad_weight = x.transpose(0, 3, 1, 2), grad_weight.transpose(0, 3, 1, 2)
    expected = np.zeros_like(grad_weight[3])
    expected[:, :2, 1:] = x[1, :, 26:28, :2] * np.float32(3)
    np.testing.assert_array_equal(grad_weight[2], 0)
    np.testing.assert_array_equal(grad_weight[3], expected)


@of_cython
@pytest.mark.parametrize("changed", ["x", "grad_out"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_meets_zeros(backend, changed, bad):
    """A kernel that is dead has a gradient of NaN where it meets an infinity."""
    case = gradient_case(KERNEL_GRADIENTS.index((NEARLY_DEAD, NEARLY_DEAD)), "NCHW", np.float32)
    arguments = {**case.arguments, changed: case.arguments[changed].copy()}
    arguments[changed][1, 7, 5, 6] = bad
    _, grad_weight, _ = backend.conv2d_backward(**arguments, **case.options)
    with np.errstate(invalid="ignore"):
        _, expected, _ = fastnn.backend("numpy").conv2d_backward(**arguments, **case.options)
    np.testing.assert_array_equal(np.isfinite(grad_weight), np.isfinite(expected))
    assert 0 < np.isnan(expected).mean() < 1


@of_cython
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("stride", [1, 2])
def test_empty_windows_give_the_bias(backend, layout, stride):
    """Exactly, beside pixels that are not empty, and once through the activation."""
    case = changed_case("conv2d", layout, IMAGES.index(patches), stride)
    bias = np.linspace(-1, 1, PIXELS["k"], dtype=np.float32)
    x, weight = case.arguments["x"], case.arguments["weight"]
    y = backend.conv2d(x, weight, bias, **case.options, activation="tanh")
    empty = backend.conv2d(np.abs(x), np.ones_like(weight), **case.options) == 0
    of_kernel = backend.tanh(bias)
    expected = np.broadcast_to(of_kernel if layout == "NHWC" else of_kernel[:, None, None], y.shape)
    np.testing.assert_array_equal(y[empty], expected[empty])
    assert 0.7 < empty.mean() < 1


@of_cython
def test_the_same_bits_with_any_number_of_threads(backend):
    for number in (IMAGES.index(patches), IMAGES.index(pixels), len(IMAGES) + 2):
        for name, stride in (("conv2d", 1), ("conv2d", 2), ("conv2d_backward", 1)):
            case = changed_case(name, "NCHW", number, stride)
            results = []
            for count in (1, 2, 4):
                with fastnn.num_threads(count):
                    values = testing.run(backend.function(case.kernel), case)
                results.append([value.tobytes() for _, value in values])
            assert results[0] == results[1] == results[2]


@of_cython
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("change", [(NEARLY_DEAD, NEARLY_DEAD), (half, one_pixel)])
def test_the_same_bits_of_kernels_that_are_hardly_alive(backend, change, layout):
    case = gradient_case(KERNEL_GRADIENTS.index(change), layout, np.float32)
    results = []
    for count in (1, 2, 4):
        with fastnn.num_threads(count):
            results.append(backend.conv2d_backward(**case.arguments, **case.options)[1].tobytes())
    assert results[0] == results[1] == results[2]
