"""Numbers that break naive formulas: huge and infinite logits, and sums too long for float32."""

import math
from functools import lru_cache

import numpy as np
import pytest
from formulas import FORMULAS
from mpmath import mp

from fastnn._contract import KERNELS

INF, NAN = math.inf, math.nan
HUGE = (1e4, -1e4, INF, -INF, NAN)


def exactly(result, expected):
    np.testing.assert_array_equal(result, expected)


@pytest.fixture(autouse=True)
def _no_floating_point_warning():
    """A stable formula neither overflows nor divides by zero on the way."""
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("step", (1, 0, 1, 0, NAN)),
        ("sign", (1, -1, 1, -1, NAN)),
        ("relu", (1e4, 0, INF, 0, NAN)),
        ("elu", (1e4, -1, INF, -1, NAN)),
        ("gelu", (1e4, 0, INF, 0, NAN)),
        ("silu", (1e4, 0, INF, 0, NAN)),
        ("mish", (1e4, 0, INF, 0, NAN)),
        ("softplus", (1e4, 0, INF, 0, NAN)),
        ("sigmoid", (1, 0, 1, 0, NAN)),
        ("hard_sigmoid", (1, 0, 1, 0, NAN)),
        ("tanh", (1, -1, 1, -1, NAN)),
        ("hard_tanh", (1, -1, 1, -1, NAN)),
        ("step_derivative", (0, 0, 0, 0, NAN)),
        ("sign_derivative", (0, 0, 0, 0, NAN)),
        ("relu_derivative", (1, 0, 1, 0, NAN)),
        ("elu_derivative", (1, 0, 1, 0, NAN)),
        ("gelu_derivative", (1, 0, 1, 0, NAN)),
        ("silu_derivative", (1, 0, 1, 0, NAN)),
        ("mish_derivative", (1, 0, 1, 0, NAN)),
        ("softplus_derivative", (1, 0, 1, 0, NAN)),
        ("sigmoid_derivative", (0, 0, 0, 0, NAN)),
        ("hard_sigmoid_derivative", (0, 0, 0, 0, NAN)),
        ("tanh_derivative", (0, 0, 0, 0, NAN)),
        ("hard_tanh_derivative", (0, 0, 0, 0, NAN)),
        ("softsign_derivative", (1 / 10001**2, 1 / 10001**2, 0, 0, NAN)),
    ],
)
def test_limits_of_activations(backend, dtype, name, expected):
    result = getattr(backend, name)(np.array(HUGE, dtype))
    np.testing.assert_allclose(result, np.array(expected, dtype), rtol=8 * np.finfo(dtype).eps, atol=0)


def test_small_numbers_keep_their_digits(backend, dtype):
    """Where 1 + x is 1, and where the result is smaller than any normal number."""
    tiny = np.finfo(dtype).tiny
    x = np.array([1e-20, -1e-20, 1e-30, -1e-30, tiny, -tiny, tiny / 4], dtype)
    exactly(backend.tanh(x), x)
    exactly(backend.elu(x), x)
    exactly(backend.softsign(x), np.array(x / (1 + np.abs(x))))
    low = np.array([-20, -50, -80], dtype)
    for name in ("sigmoid", "softplus"):
        np.testing.assert_allclose(
            getattr(backend, name)(low), np.exp(low), rtol=1e-6 if dtype == np.float32 else 3e-9
        )


def points_of_every_magnitude(dtype, count):
    """As many evenly from -20 to 20 as of either sign from the smallest number to 1024."""
    rng = np.random.default_rng(11)
    smallest = math.log2(np.finfo(dtype).smallest_subnormal)
    magnitudes = np.exp2(rng.uniform(smallest, 10, count)) * rng.choice([-1.0, 1.0], count)
    return np.concatenate([rng.uniform(-20, 20, count), magnitudes]).astype(dtype)


def is_function_of_a_number(kernel):
    parameters = list(kernel.signature.parameters)
    return kernel.family == "activations" and parameters[0] == "x" and "axis" not in parameters


@pytest.mark.kernels(having=is_function_of_a_number)
def test_errors_at_every_magnitude(backend, kernel):
    """The promised precision at numbers of either sign from the smallest to 1024, against the definition in float64."""
    x = points_of_every_magnitude(np.float32, 20_000)
    exact = kernel.definition(x.astype(np.float64))
    limits = np.finfo(np.float32)
    unit = limits.eps * np.maximum(np.abs(exact), max(kernel.floor, limits.smallest_normal))
    error = np.abs(backend.function(kernel)(x).astype(np.float64) - exact)
    assert np.max(error / unit) <= kernel.ulp


@lru_cache
def points_and_exact_results(name, dtype):
    """Results in float64 for float32, and in 50 digits for float64, where a point takes a thousand times as long."""
    if dtype == np.float32:
        x = points_of_every_magnitude(dtype, 100_000)
        return x, KERNELS[name].definition(x.astype(np.float64))
    x = points_of_every_magnitude(dtype, 3000)
    with mp.workdps(50):
        return x, np.array([FORMULAS[name, ()](mp.mpf(value)) for value in x.tolist()])


@pytest.mark.backends(having=lambda backend: backend.id != "numpy")
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "silu", "elu", "gelu"])
def test_vector_math_is_within_two_units(backend, dtype, name):
    """Units in the last place, whatever wider error the contract leaves NumPy's own functions."""
    x, exact = points_and_exact_results(name, dtype)
    error = np.abs(getattr(backend, name)(x).astype(exact.dtype) - exact).astype(np.float64)
    floor = dtype(KERNELS[name].floor)
    assert np.max(error / np.spacing(np.maximum(np.abs(exact.astype(dtype)), floor))) <= 2


@pytest.mark.parametrize("name", ["silu", "mish"])
def test_products_smaller_than_their_factors(backend, dtype, name):
    """x e^x keeps its digits where e^x is denormal, and is rounded once where it is so itself."""
    low = -np.log(np.finfo(dtype).smallest_subnormal)
    x = np.linspace(-low - 10, 25 - low, 20_000, dtype=dtype)
    half = np.floor(low / 2)  # of an exponent that float64 holds twice
    expected = (x * np.exp(x + half, dtype=np.float64)) * np.exp(-half, dtype=np.float64)
    error = np.abs(getattr(backend, name)(x).astype(np.float64) - expected)
    unit = np.finfo(dtype).eps * np.maximum(np.abs(expected), np.finfo(dtype).smallest_normal)
    assert np.max(error / unit) < 4


def test_softmax_at_any_logits(backend, dtype):
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [0, -INF, -INF], [1e4, 1e4, -INF]], dtype)
    third = dtype(1) / dtype(3)
    exactly(backend.softmax(x), np.array([[1, 0, 0], [third] * 3, [1, 0, 0], [0.5, 0.5, 0]], dtype))
    log_third, log_half = -np.log(dtype(3)), -np.log(dtype(2))
    expected = [[0, -1e4, -2e4], [log_third] * 3, [0, -INF, -INF], [log_half, log_half, -INF]]
    np.testing.assert_allclose(
        backend.log_softmax(x), np.array(expected, dtype), rtol=4 * np.finfo(dtype).eps
    )


def test_cross_entropy_at_any_logits(backend, dtype):
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [0, -INF, -INF]], dtype)
    losses = backend.cross_entropy(x, np.array([0, 1, 0]), reduction="none")
    np.testing.assert_allclose(losses, [0, math.log(3), 0], rtol=4 * np.finfo(dtype).eps)
    losses = backend.cross_entropy(x, np.array([2, 1, 1]), reduction="none")
    np.testing.assert_allclose(losses, [2e4, math.log(3), INF], rtol=4 * np.finfo(dtype).eps)
    grad = backend.cross_entropy_backward(1.0, x, np.array([2, 1, 0]), reduction="sum")
    third = 1 / 3
    expected = [[1, 0, -1], [third, third - 1, third], [0, 0, 0]]
    np.testing.assert_allclose(grad, expected, rtol=8 * np.finfo(dtype).eps)


def test_binary_cross_entropy_at_any_logits(backend, dtype):
    x = np.array([1e4, -1e4, 1e4, -1e4, INF, -INF, INF, -INF, 0], dtype)
    target = np.array([1, 0, 0, 1, 1, 0, 0, 1, 0.5], dtype)
    losses = backend.binary_cross_entropy_with_logits(x, target, reduction="none")
    expected = [0, 0, 1e4, 1e4, 0, 0, INF, INF, math.log(2)]
    np.testing.assert_allclose(losses, np.array(expected, dtype), rtol=2 * np.finfo(dtype).eps)
    grad = backend.binary_cross_entropy_with_logits_backward(np.ones_like(x), x, target, reduction="none")
    exactly(grad, [0, 0, 1, -1, 0, 0, 1, -1, 0])


def test_binary_cross_entropy_of_certainties(backend, dtype):
    """A certain and wrong prediction costs what PyTorch charges, 100, and is not infinite."""
    y, target = np.array([0, 1, 0, 1], dtype), np.array([0, 1, 1, 0], dtype)
    exactly(backend.binary_cross_entropy(y, target, reduction="none"), [0, 0, 100, 100])
    assert np.all(np.isfinite(backend.binary_cross_entropy_backward(1.0, y, target)))


@pytest.mark.parametrize(
    "labels", [[0, 3], [-1, 0], [0, 2**40], [-(2**62), 0]], ids=["above", "below", "far above", "far below"]
)
def test_labels_out_of_range(backend, dtype, labels):
    logits, grad = np.zeros((2, 3), dtype), np.full((2, 3), 7, dtype)
    calls = {
        "cross_entropy": lambda: backend.cross_entropy(logits, labels),
        "cross_entropy_backward": lambda: backend.cross_entropy_backward(1.0, logits, labels, out=grad),
        "cross_entropy_with_grad": lambda: backend.cross_entropy_with_grad(logits, labels, out=grad),
    }
    for name, call in calls.items():
        with pytest.raises(IndexError, match=f"^{name}: target "):
            call()
    exactly(grad, 7)


# ----------------------------------------------------------------------------------------------------
# Sums in float32: 2^25 ones are 2^24 where a naive sum ends, since 2^24 + 1 is no float32

MANY = 2**25


@pytest.mark.parametrize("name", ["mse_loss", "half_squared_error"])
def test_mean_of_many_ones(backend, name):
    y = np.ones((MANY, 1), np.float32)
    loss = getattr(backend, name)(y, np.zeros_like(y))
    assert loss == (1 if name == "mse_loss" else 0.5)
    assert loss.dtype == np.float32


def test_sum_of_many_ones(backend):
    y = np.ones(MANY, np.float32)
    assert backend.mse_loss(y, np.zeros_like(y), reduction="sum") == MANY
    loss, _ = backend.mse_loss_with_grad(y, np.zeros_like(y), reduction="sum", out=y)
    assert loss == MANY


def test_mean_of_many_cross_entropies(backend):
    logits, labels = np.zeros((2**22, 2), np.float32), np.zeros(2**22, np.int8)
    assert backend.cross_entropy(logits, labels) == np.float32(math.log(2))


def test_softmax_of_many(backend):
    y = backend.softmax(np.zeros(MANY, np.float32))
    assert y[0] == y[-1] == np.float32(1 / MANY)
    log_y = backend.log_softmax(np.zeros(MANY, np.float32))
    assert log_y[0] == log_y[-1] == np.float32(-math.log(MANY))


def test_bias_gradient_of_many(backend):
    grad_out, x, weight = (
        np.ones((MANY, 1), np.float32),
        np.ones((MANY, 1), np.float32),
        np.ones((1, 1), np.float32),
    )
    _, _, grad_bias = backend.linear_backward(grad_out, x, weight, needs=(False, False, True))
    assert grad_bias == MANY
    images = grad_out.reshape(1, 1, 2**12, -1)
    kernels = np.ones((1, 1, 1, 1), np.float32)
    _, _, grad_bias = backend.conv2d_backward(images, images, kernels, needs=(False, False, True))
    assert grad_bias == MANY


@pytest.mark.backends(having=lambda backend: backend.id.startswith("cython"))
@pytest.mark.parametrize("rows", [1, 3])
def test_dot_product_of_many(backend, rows):
    rng = np.random.default_rng(0)
    x, weight = rng.random((rows, MANY // 4), np.float32), rng.random((2, MANY // 4), np.float32)
    np.testing.assert_allclose(backend.linear(x, weight), x.astype(float) @ weight.T.astype(float), rtol=2e-6)


def test_average_of_many(backend):
    image = np.ones((1, 1, 2**12, MANY // 2**12), np.float32)
    assert backend.avg_pool2d(image, image.shape[2:]).item() == 1


def windows_at(x, kernel, stride, padding):
    """Maxima and their places, window by window: a NaN is larger than any number, and the first one counts."""
    height, width = x.shape[2:]
    rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    maxima, places = (
        np.empty((*x.shape[:2], rows, columns), x.dtype),
        np.empty((*x.shape[:2], rows, columns), int),
    )
    for n, c, p, q in np.ndindex(maxima.shape):
        inside = [
            (h, w)
            for h in range(max(p * stride - padding, 0), min(p * stride - padding + kernel, height))
            for w in range(max(q * stride - padding, 0), min(q * stride - padding + kernel, width))
        ]
        values = np.array([x[n, c, h, w] for h, w in inside])
        h, w = inside[int(values.argmax())]
        maxima[n, c, p, q], places[n, c, p, q] = x[n, c, h, w], h * width + w
    return maxima, places


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (NAN, 0.0, 1.0), (-INF, INF, 0.0), (-INF,)])
@pytest.mark.parametrize("shape", [(2, 1, 3, 5), (1, 2, 7, 17), (2, 1, 6, 32), (1, 1, 5, 35)])
def test_maxima_of_equal_and_special_numbers(backend, dtype, shape, numbers):
    x = np.random.default_rng(3).choice(numbers, shape).astype(dtype)
    for kernel, stride, padding in [(2, 2, 0), (2, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 0), (3, 3, 1)]:
        maxima, places = windows_at(x, kernel, stride, padding)
        y, indices = backend.max_pool2d(x, kernel, stride=stride, padding=padding, return_indices=True)
        exactly(y, maxima)
        exactly(indices, places)
        exactly(backend.max_pool2d(x, kernel, stride=stride, padding=padding), maxima)


def scattered(grad, indices, shape):
    """Each gradient added at its place, one after the other."""
    x = np.zeros((shape[0] * shape[1], shape[2] * shape[3]), grad.dtype)
    planes = np.arange(len(x))[:, np.newaxis]
    np.add.at(x, (planes, indices.reshape(len(x), -1)), grad.reshape(len(x), -1))
    return x.reshape(shape)


#: Windows that lie side by side and that overlap, which have loops of their own.
NEIGHBOURS = [(2, 0), (3, 1)]


@pytest.mark.parametrize(("taps", "padding"), NEIGHBOURS)
@pytest.mark.parametrize("size", [(4, 8), (6, 16), (8, 28), (2, 32), (8, 36), (7, 48), (6, 49), (4, 1030)])
def test_gradients_of_neighbouring_windows(backend, dtype, size, taps, padding):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 9, (3, 2, *size)).astype(dtype)
    y, indices = backend.max_pool2d(x, taps, stride=2, padding=padding, return_indices=True)
    grad = rng.integers(-9, 9, y.shape).astype(dtype)  # of which no sum is rounded
    exactly(backend.max_pool2d_backward(grad, indices, x.shape), scattered(grad, indices, x.shape))


@pytest.mark.parametrize(("taps", "padding"), NEIGHBOURS)
@pytest.mark.parametrize("window", [(0, 0), (0, -1), (2, 0), (2, 7), (3, 0), (3, -1)])
@pytest.mark.parametrize("width", [28, 32])
def test_a_gradient_goes_where_its_index_says(backend, dtype, width, window, taps, padding):
    """In whatever place of the plane, also where none of the window's own elements are."""
    rng = np.random.default_rng(6)
    x = rng.random((1, 1, 8, width)).astype(dtype)
    y, indices = backend.max_pool2d(x, taps, stride=2, padding=padding, return_indices=True)
    grad = rng.integers(-9, 9, y.shape).astype(dtype)
    for place in range(x.size):
        indices[0, 0, *window] = place
        exactly(backend.max_pool2d_backward(grad, indices, x.shape), scattered(grad, indices, x.shape))


@pytest.mark.parametrize(("taps", "padding"), NEIGHBOURS)
@pytest.mark.parametrize("width", [28, 32])
def test_an_index_above_the_plane_is_refused(backend, dtype, width, taps, padding):
    x = np.zeros((1, 1, 8, width), dtype)
    y, indices = backend.max_pool2d(x, taps, stride=2, padding=padding, return_indices=True)
    for place in range(-34, 0):
        indices[0, 0, 0, 7] = place
        with pytest.raises(IndexError):
            backend.max_pool2d_backward(y, indices, x.shape)
