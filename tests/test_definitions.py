"""The definitions mean what they say: closed forms, plain loops and worked examples that share no code with them.

Parity holds the other backends to the definitions; the worked examples are run on all of them.
"""

import itertools
import math

import numpy as np
import pytest
from formulas import FORMULAS
from mpmath import mp
from worked_examples import EXAMPLES

import fastnn
from fastnn import testing
from fastnn._contract import KERNELS

numpy = fastnn.backend("numpy")

# ----------------------------------------------------------------------------------------------------
# Activations, against formulas in many digits

#: Everyday values, the edges of the exponential, and numbers whose square or cube is not finite.
POINTS = np.array(
    [
        *np.linspace(-12.25, 12.25, 50),
        *(sign * x for x in (1e-300, 1e-20, 1e-8, 30, 37.5, 100, 708, 745, 1e4, 1e200) for sign in (-1, 1)),
    ]
)
ACTIVATIONS = [
    kernel.name
    for kernel in KERNELS.values()
    if kernel.family == "activations" and kernel.forward is None and "axis" not in kernel.signature.parameters
]
formulas = pytest.mark.parametrize(("name", "options"), FORMULAS, ids=str)


def test_every_activation_has_a_formula():
    assert {name for name, _ in FORMULAS} == set(ACTIVATIONS)


def assert_near(results, expected, points, kernel):
    """Within the kernel's promise, the reference rounded once."""
    eps, tiny = np.finfo(np.float64).eps, np.finfo(np.float64).tiny
    for result, exact, x in zip(results, expected, points, strict=True):
        bound = (kernel.ulp + 0.5) * eps * max(abs(exact), kernel.floor) + (tiny if kernel.ulp else 0)
        assert abs(mp.mpf(float(result)) - exact) <= bound, f"{kernel.name}({x!r}) is {result!r}, not {exact}"


@formulas
def test_activation_is_its_formula(name, options):
    with mp.workdps(60):
        exact = [FORMULAS[name, options](mp.mpf(float(x))) for x in POINTS]
        assert_near(getattr(numpy, name)(POINTS, **dict(options)), exact, POINTS, KERNELS[name])


def slope(formula, x):
    """Central difference with a step below the smallest double, in digits enough to see it."""
    step = max(abs(x), 1) * mp.mpf(10) ** -330
    return (formula(x + step) - formula(x - step)) / (2 * step)


@formulas
def test_derivative_is_that_of_the_formula(name, options):
    kernel, formula = KERNELS[f"{name}_derivative"], FORMULAS[name, options]
    smooth = [x for x in POINTS if all(abs(x - kink) > 1e-6 for kink in KERNELS[name].kinks)]
    with mp.workdps(800):
        exact = [slope(formula, mp.mpf(float(x))) for x in smooth]
        assert_near(getattr(numpy, kernel.name)(smooth, **dict(options)), exact, smooth, kernel)


@pytest.mark.parametrize(
    ("name", "x", "options", "value", "slope"),
    [
        ("step", 0, {}, 1, 0),
        ("step", 0.5, {"threshold": 0.5}, 1, 0),
        ("sign", 0, {}, 0, 0),
        ("relu", 0, {}, 0, 0),
        ("leaky_relu", 0, {}, 0, 0.01),
        ("elu", 0, {}, 0, 1),
        ("hard_tanh", 1, {}, 1, 0),
        ("hard_tanh", -1, {}, -1, 0),
        ("hard_sigmoid", 3, {}, 1, 0),
        ("hard_sigmoid", -3, {}, 0, 0),
        ("sigmoid", 0, {}, 0.5, 0.25),
        ("tanh", 0, {}, 0, 1),
        ("softplus", 0, {}, math.log(2), 0.5),
        ("softsign", 1, {}, 0.5, 0.25),
        ("gelu", 0, {}, 0, 0.5),
        ("silu", 0, {}, 0, 0.5),
        ("mish", 0, {}, 0, 0.6),
    ],
)
def test_values_at_special_points(backend, name, x, options, value, slope):
    """Conventions where there is no derivative, and textbook values."""
    points = np.full(3, float(x))
    np.testing.assert_allclose(getattr(backend, name)(points, **options), value, rtol=1e-15, atol=0)
    derivative = getattr(backend, f"{name}_derivative")(points, **options)
    np.testing.assert_allclose(derivative, slope, rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_is_grad_out_times_the_derivative(name):
    rng = np.random.default_rng(0)
    x, grad_out = rng.normal(size=(2, 100))
    backward = KERNELS[f"{name}_backward"]
    saved = getattr(numpy, name)(x) if "y" in backward.signature.parameters else x
    expected = grad_out * getattr(numpy, f"{name}_derivative")(x)
    np.testing.assert_allclose(backward.definition(grad_out, saved), expected, rtol=1e-13, atol=1e-15)


def test_softmax_of_the_notes(backend):
    """E6: logits (-5, -1, 1, 5)."""
    logits = np.array([-5.0, -1, 1, 5])
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(backend.softmax(logits), expected, rtol=1e-15)
    np.testing.assert_allclose(backend.softmax(logits), [0.00004, 0.00243, 0.01794, 0.97959], atol=5e-6)
    np.testing.assert_allclose(backend.log_softmax(logits), np.log(expected), rtol=1e-14)
    sigmoid = backend.sigmoid(logits)
    np.testing.assert_allclose(sigmoid, [0.00669, 0.26894, 0.73106, 0.99331], atol=5e-6)
    np.testing.assert_allclose(sigmoid / sigmoid.sum(), [0.00334, 0.13447, 0.36553, 0.49666], atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_softmax_along_any_axis(backend, axis):
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    y, log_y = backend.softmax(x, axis=axis), backend.log_softmax(x, axis=axis)
    np.testing.assert_allclose(y.sum(axis), 1, rtol=1e-14)
    np.testing.assert_allclose(
        np.moveaxis(y, axis, -1), backend.softmax(np.moveaxis(x, axis, -1)), rtol=1e-14
    )
    np.testing.assert_allclose(np.exp(log_y), y, rtol=1e-13)
    np.testing.assert_allclose(backend.softmax(x + 1000, axis=axis), y, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------
# The dense layer, and the worked examples


def layer(example, number):
    return np.array(example[f"weight{number}"]), np.array(example[f"bias{number}"])


def approx(expected):
    return pytest.approx(np.array(expected), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(backend, name):
    """Forward, error, deltas, gradients and new weights of a network of the notes."""
    example = EXAMPLES[name]
    x, target = np.array(example["x"]), np.array(example["target"])
    depth = 2 if "weight2" in example else 1
    inputs = [x]
    for number in range(1, depth + 1):
        weight, bias = layer(example, number)
        assert backend.linear(inputs[-1], weight, bias) == approx(example[f"z{number}"])
        inputs.append(backend.linear(inputs[-1], weight, bias, activation="sigmoid"))
    y = inputs.pop()
    assert y == approx(example["y"])
    assert depth == 1 or inputs[1] == approx(example["h"])
    assert backend.half_squared_error(y, target) == approx(example["loss"])

    delta = backend.output_delta(y, target, activation="sigmoid", loss="half_squared_error")
    assert delta == approx(example["delta_out"])
    for number in range(depth, 0, -1):
        weight, bias = layer(example, number)
        _, grad_weight, grad_bias = backend.linear_backward(delta, inputs[number - 1], weight)
        assert grad_weight == approx(example[f"grad_w{number}"])
        assert grad_bias == approx(example[f"grad_b{number}"])
        if number > 1:
            delta = backend.hidden_delta(delta, weight, inputs[number - 1], activation="sigmoid")
            assert delta == approx(example["delta_hidden"])
        backend.sgd_step(weight, grad_weight, lr=example["learning_rate"])
        backend.sgd_step(bias, grad_bias, lr=example["learning_rate"])
        assert weight == approx(example[f"new_w{number}"])
        assert bias == approx(example[f"new_b{number}"])


def test_a_name_made_at_run_time_is_a_name(backend):
    """As one that was read from a file: equal to the name in the source, but another object."""
    x, weight, kernels = np.array([[-1.0, 2]]), np.eye(2), np.ones((1, 1, 1, 1))
    name = "".join(["re", "lu"])
    assert backend.linear(x, weight, activation=name).tolist() == [[0, 2]]
    assert backend.conv2d(x[None, None], kernels, activation=name).tolist() == [[[[0, 2]]]]
    assert backend.hidden_delta(x, weight, x, activation=name).tolist() == [[0, 2]]


def test_the_deltas_are_the_chain_rule(backend):
    """output_delta is the loss's gradient through the activation; hidden_delta the layer's through the next."""
    rng = np.random.default_rng(0)
    z, target = rng.normal(size=(6, 3)), rng.random((6, 3))
    for activation in (None, "relu", "sigmoid", "tanh"):
        y = z if activation is None else getattr(backend, activation)(z)
        slope = 1 if activation is None else getattr(backend, f"{activation}_derivative")(z)
        expected = (y - target) * slope
        delta = backend.output_delta(y, target, activation=activation)
        np.testing.assert_allclose(delta, expected, rtol=1e-13, atol=1e-15)
        weight = rng.normal(size=(4, 3))
        delta_next = rng.normal(size=(6, 4))
        hidden = backend.hidden_delta(delta_next, weight, y, activation=activation)
        np.testing.assert_allclose(hidden, (delta_next @ weight) * slope, rtol=1e-12, atol=1e-14)
    matched = {"binary_cross_entropy": "sigmoid", "cross_entropy": "softmax"}
    for loss, activation in matched.items():
        y = getattr(backend, activation)(z)
        np.testing.assert_allclose(
            backend.output_delta(y, target, activation=activation, loss=loss), y - target
        )


def test_threshold_units_of_the_notes(backend):
    """AND and OR with a threshold of 2, and XOR with one hidden layer."""
    x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])

    def unit(inputs, *weights):
        return backend.step(backend.linear(inputs, np.array([weights], float)), threshold=2)[:, 0]

    both, either = unit(x, 1, 1), unit(x, 2, 2)
    assert both.tolist() == [0, 0, 0, 1]
    assert either.tolist() == [0, 1, 1, 1]
    assert unit(np.stack([either, both], 1), 2, -2).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("lr", "w", "b"), [(0.1, -1.5, 3.1), (0.3, -0.5, 3.3), (0.5, 0.5, 3.5)])
def test_gradient_step_of_the_notes(backend, lr, w, b):
    """E7: f = wx + b is to grow, so the step is along its gradient (x, 1)."""
    param, x = np.array([-2.0, 3.0]), 5.0
    backend.sgd_step(param, -np.array([x, 1]), lr=lr)
    assert param == approx([w, b])


def test_computational_graph_of_the_notes(backend):
    """E8: f = (x + y) z at (2, 5, -4)."""
    terms, z = np.array([2.0, 5.0]), np.array([[-4.0]])
    ones = np.ones((1, 2))
    total = backend.linear(terms, ones)
    grad_total, grad_z, _ = backend.linear_backward(np.ones(1), total, z)
    grad_terms, _, _ = backend.linear_backward(grad_total, terms, ones)
    assert backend.linear(total, z).tolist() == [-28]
    assert (grad_terms.tolist(), grad_z.tolist()) == ([-4, -4], [[7]])


def test_number_of_weights_of_the_notes(backend):
    """E10: 36-36-2, each unit with a bias."""
    sizes, count, x = (36, 36, 2), 0, np.zeros(36)
    for inputs, outputs in itertools.pairwise(sizes):
        weight, bias = np.zeros((outputs, inputs)), np.zeros(outputs)
        x = backend.linear(x, weight, bias)
        count += weight.size + bias.size
    assert (x.shape, count) == ((2,), 1406)


def test_linear_is_a_sum_of_products(backend):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.integers(-9, 9, (2, 3, 5)), rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, 4)
    expected = [
        [[sum(x[a, b, i] * weight[o, i] for i in range(5)) + bias[o] for o in range(4)] for b in range(3)]
        for a in range(2)
    ]
    assert backend.linear(x, weight, bias).tolist() == expected


# ----------------------------------------------------------------------------------------------------
# Convolution and pooling, against plain loops


@pytest.mark.parametrize(
    ("n", "f", "s", "p", "expected"), [(24, 5, 1, 0, 20), (7, 3, 1, 1, 7), (7, 3, 2, 0, 3)]
)
def test_activation_map_size_of_the_notes(backend, n, f, s, p, expected):
    """E9: (N - F + 2P) / S + 1."""
    y = backend.conv2d(np.ones((1, 1, n, n)), np.ones((1, 1, f, f)), stride=s, padding=p)
    assert y.shape == (1, 1, expected, expected)
    pooled = backend.avg_pool2d(np.ones((1, 1, n, n)), f, stride=s, padding=p)
    assert pooled.shape == y.shape


def pads_of(padding, length, axis, taps, stride, dilation):
    """Padding before and after along one axis, from any of its forms."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((math.ceil(length / stride) - 1) * stride + (taps - 1) * dilation + 1 - length, 0)
        return total // 2, total - total // 2
    if isinstance(padding, int):
        return padding, padding
    one = padding[axis]
    return one if isinstance(one, tuple) else (one, one)


def windows_of(length, taps, stride, padding, dilation, axis, ceil_mode=False):
    """For each output position along one axis, the input positions of its taps; None in the padding."""
    before, after = pads_of(padding, length, axis, taps, stride, dilation)
    room = length + before + after - (taps - 1) * dilation - 1
    count = room // stride + 1
    if ceil_mode and room % stride and count * stride < length + before:
        count += 1
    starts = [i * stride - before for i in range(count)]
    positions = [[start + tap * dilation for tap in range(taps)] for start in starts]
    return [[i if 0 <= i < length else None for i in row] for row in positions], after


@pytest.mark.parametrize("padding", [0, 1, (2, 1), ((1, 0), (0, 2)), "same", "valid"], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d_is_a_loop(padding, stride, dilation, groups):
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 4, 7, 6)).astype(float)
    weight = rng.integers(-4, 5, (6, 4 // groups, 3, 2)).astype(float)
    bias = rng.integers(-4, 5, 6).astype(float)
    rows, _ = windows_of(7, 3, stride, padding, dilation, 0)
    columns, _ = windows_of(6, 2, stride, padding, dilation, 1)
    expected = np.zeros((2, 6, len(rows), len(columns))) + bias[:, None, None]
    for n, k, p, q in np.ndindex(expected.shape):
        for c, r, s in np.ndindex(weight.shape[1:]):
            i, j = rows[p][r], columns[q][s]
            if i is not None and j is not None:
                channel = k // (6 // groups) * (4 // groups) + c
                expected[n, k, p, q] += weight[k, c, r, s] * x[n, channel, i, j]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    np.testing.assert_array_equal(numpy.conv2d(x, weight, bias, **options), expected)
    x_last, weight_last = x.transpose(0, 2, 3, 1), weight.transpose(0, 2, 3, 1)
    y_last = numpy.conv2d(x_last, weight_last, bias, layout="NHWC", **options)
    np.testing.assert_array_equal(y_last.transpose(0, 3, 1, 2), expected)


def test_fused_activations(backend):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(2, 3, 5, 5)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    rows, matrix = x.reshape(2, 75), rng.normal(size=(4, 75))
    for activation in ("relu", "sigmoid", "tanh"):
        function = getattr(backend, activation)
        fused = backend.conv2d(x, weight, bias, activation=activation)
        np.testing.assert_allclose(fused, function(backend.conv2d(x, weight, bias)), rtol=1e-13, atol=1e-15)
        fused = backend.linear(rows, matrix, bias, activation=activation)
        np.testing.assert_allclose(
            fused, function(backend.linear(rows, matrix, bias)), rtol=1e-13, atol=1e-15
        )


@pytest.mark.parametrize("padding", [0, 1, ((1, 0), (0, 1)), "same", "valid"], ids=str)
@pytest.mark.parametrize("stride", [None, 1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_is_a_loop(padding, stride, dilation, ceil_mode):
    x = np.random.default_rng(0).integers(0, 9, (2, 3, 7, 6)).astype(float)
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    rows, after = windows_of(7, 3, stride or 3, padding, dilation, 0, ceil_mode)
    columns, right = windows_of(6, 2, stride or 2, padding, dilation, 1, ceil_mode)
    shape = (2, 3, len(rows), len(columns))
    largest, indices = np.full(shape, -np.inf), np.full(shape, -1)
    averages, proper_averages = np.zeros(shape), np.zeros(shape)
    for n, c, p, q in np.ndindex(shape):
        inside = [(i, j) for i in rows[p] for j in columns[q] if i is not None and j is not None]
        for i, j in inside:
            if x[n, c, i, j] > largest[n, c, p, q]:  # so that ties go to the first
                largest[n, c, p, q], indices[n, c, p, q] = x[n, c, i, j], i * 6 + j
        total = sum(x[n, c, i, j] for i, j in inside)
        proper_averages[n, c, p, q] = total / len(inside)
        averages[n, c, p, q] = total / (counted(rows, p, 7, after, 3) * counted(columns, q, 6, right, 2))
    y, where = numpy.max_pool2d(x, (3, 2), dilation=dilation, return_indices=True, **options)
    np.testing.assert_array_equal(y, largest)
    np.testing.assert_array_equal(where, indices)
    if dilation == 1:
        np.testing.assert_allclose(numpy.avg_pool2d(x, (3, 2), **options), averages, rtol=1e-14)
        proper = numpy.avg_pool2d(x, (3, 2), count_include_pad=False, **options)
        np.testing.assert_allclose(proper, proper_averages, rtol=1e-14)


def counted(windows, index, length, after, taps):
    """The taps of a window along one axis that an average counts: not those beyond the padding behind the image."""
    inside = [tap for tap, position in enumerate(windows[index]) if position is not None]
    start = windows[index][inside[0]] - inside[0]
    return min(start + taps, length + after) - start


def test_pooling_layouts_agree():
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6))
    last = x.transpose(0, 2, 3, 1)
    y, indices = numpy.max_pool2d(x, 2, return_indices=True)
    y_last, indices_last = numpy.max_pool2d(last, 2, layout="NHWC", return_indices=True)
    np.testing.assert_array_equal(y_last.transpose(0, 3, 1, 2), y)
    np.testing.assert_array_equal(indices_last.transpose(0, 3, 1, 2), indices)
    np.testing.assert_array_equal(
        numpy.avg_pool2d(last, 2, layout="NHWC").transpose(0, 3, 1, 2), numpy.avg_pool2d(x, 2)
    )


def test_ties_go_to_the_first_maximum(backend, dtype):
    y, indices = backend.max_pool2d(np.zeros((1, 1, 4, 4), dtype), 2, return_indices=True)
    assert indices.ravel().tolist() == [0, 2, 8, 10]
    grad = backend.max_pool2d_backward(np.ones_like(y), indices, (1, 1, 4, 4))
    assert grad.ravel().nonzero()[0].tolist() == [0, 2, 8, 10]


# ----------------------------------------------------------------------------------------------------
# Losses


def test_losses_of_known_values(backend):
    y, target = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[0.0, 0.0], [3.0, 1.0]])
    assert backend.mse_loss(y, target) == (1 + 4 + 0 + 16) / 4
    assert backend.mse_loss(y, target, reduction="sum") == 21
    assert backend.mse_loss(y, target, reduction="none").tolist() == [[1, 4], [0, 16]]
    assert backend.half_squared_error(y, target) == (5 / 2 + 16 / 2) / 2
    assert backend.half_squared_error(y, target, reduction="sum") == 10.5
    assert backend.half_squared_error(y, target, reduction="none").tolist() == [2.5, 8]
    assert backend.mse_loss_backward(1.0, y, target).tolist() == [[0.5, 1], [0, 2]]
    assert backend.half_squared_error_backward(1.0, y, target).tolist() == [[0.5, 1], [0, 2]]


def test_binary_cross_entropy_of_known_values(backend):
    y, target = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.0, 0.25])
    terms = [-math.log(0.9), -math.log(0.8), math.log(2)]
    assert backend.binary_cross_entropy(y, target, reduction="none") == approx(terms)
    assert backend.binary_cross_entropy(y, target) == approx(sum(terms) / 3)
    logits = np.log(y / (1 - y))
    assert backend.binary_cross_entropy_with_logits(logits, target, reduction="none") == approx(terms)
    assert backend.binary_cross_entropy_with_logits_backward(1.0, logits, target) == approx((y - target) / 3)


def test_cross_entropy_of_the_notes(backend):
    """E6: logits (-5, -1, 1, 5), the label has index 3."""
    logits = np.array([[-5.0, -1, 1, 5]])
    exact = math.log(math.fsum(math.exp(x - 5) for x in logits[0]))
    assert backend.cross_entropy(logits, np.array([3])) == approx(exact)
    assert backend.cross_entropy(logits, np.array([3])) == pytest.approx(0.0206256, abs=5e-8)
    assert backend.cross_entropy(logits, np.array([[0.0, 0, 0, 1]])) == approx(exact)


def test_cross_entropy_with_every_option(backend):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 3)), np.array([0, 2, -7, 1, -7])
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    smooth = 0.3
    terms = [
        0
        if label == -7
        else -sum(log_p[row, k] * (smooth / 3 + (1 - smooth) * (k == label)) for k in range(3))
        for row, label in enumerate(labels)
    ]
    options = {"ignore_index": -7, "label_smoothing": smooth}
    assert backend.cross_entropy(logits, labels, reduction="none", **options) == approx(terms)
    assert backend.cross_entropy(logits, labels, reduction="sum", **options) == approx(sum(terms))
    assert backend.cross_entropy(logits, labels, **options) == approx(sum(terms) / 3)
    target = rng.dirichlet(np.ones(3), 5)
    mixed = (1 - smooth) * target + smooth / 3
    loss = backend.cross_entropy(logits, target, label_smoothing=smooth)
    assert loss == approx(-(mixed * log_p).sum() / 5)


# ----------------------------------------------------------------------------------------------------
# Optimizers, against three steps in plain Python

GRADS = (0.5, -1.25, 2.0)


def steps(backend, name, state, **options):
    """The parameter after each of three steps from 1, and the state."""
    param = np.array([1.0])
    states = [np.zeros(1) for _ in range(state)]
    path = []
    for number, grad in enumerate(GRADS, 1):
        numbered = {"step": number} if name == "adam_step" else {}
        assert getattr(backend, name)(param, np.array([grad]), *states, **numbered, **options) is None
        path.append(param[0])
    return approx(path)


def test_sgd(backend):
    x, path = 1.0, []
    for grad in GRADS:
        x -= 0.1 * (grad + 0.2 * x)
        path.append(x)
    assert path == steps(backend, "sgd_step", 0, lr=0.1, weight_decay=0.2)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(backend, nesterov):
    x, velocity, path = 1.0, 0.0, []
    for grad in GRADS:
        g = grad + 0.2 * x
        velocity = 0.8 * velocity + g
        x -= 0.1 * (g + 0.8 * velocity if nesterov else velocity)
        path.append(x)
    options = {"lr": 0.1, "momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.2}
    assert path == steps(backend, "momentum_step", 1, **options)


def test_adagrad(backend):
    x, total, path = 1.0, 0.0, []
    for grad in GRADS:
        g = grad + 0.2 * x
        total += g * g
        x -= 0.1 * g / (math.sqrt(total) + 1e-3)
        path.append(x)
    assert path == steps(backend, "adagrad_step", 1, lr=0.1, eps=1e-3, weight_decay=0.2)


def test_rmsprop(backend):
    x, average, path = 1.0, 0.0, []
    for grad in GRADS:
        g = grad + 0.2 * x
        average = 0.9 * average + 0.1 * g * g
        x -= 0.1 * g / (math.sqrt(average) + 1e-3)
        path.append(x)
    assert path == steps(backend, "rmsprop_step", 1, lr=0.1, alpha=0.9, eps=1e-3, weight_decay=0.2)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam(backend, decoupled, amsgrad):
    """As published: bias correction by 1 - beta^t, eps outside the root."""
    x, first, second, largest, path = 1.0, 0.0, 0.0, 0.0, []
    for t, grad in enumerate(GRADS, 1):
        g = grad if decoupled else grad + 0.2 * x
        x *= 1 - 0.1 * 0.2 if decoupled else 1
        first = 0.8 * first + 0.2 * g
        second = 0.6 * second + 0.4 * g * g
        largest = max(largest, second)
        divisor = math.sqrt((largest if amsgrad else second) / (1 - 0.6**t)) + 1e-3
        x -= 0.1 * first / (1 - 0.8**t) / divisor
        path.append(x)
    options = {
        "lr": 0.1,
        "beta1": 0.8,
        "beta2": 0.6,
        "eps": 1e-3,
        "weight_decay": 0.2,
        "decoupled": decoupled,
    }
    assert path == steps(backend, "adam_step", 3 if amsgrad else 2, **options)


def test_the_first_step_of_adam_is_the_learning_rate(backend):
    param, grad = np.zeros(3), np.array([1e-4, -3.0, 1e6])
    backend.adam_step(param, grad, np.zeros(3), np.zeros(3), step=1, lr=0.01, eps=0)
    assert param == approx([-0.01, 0.01, -0.01])


# ----------------------------------------------------------------------------------------------------
# Normalisation


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (2, 3, 4, 2), (6,)])
def test_layer_norm_is_by_row(backend, shape):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(one) for one in (shape, shape[-1:], shape[-1:]))
    expected = np.empty(shape)
    for row in np.ndindex(shape[:-1]):
        deviation = x[row] - x[row].mean()
        expected[row] = deviation / math.sqrt((deviation**2).mean() + 0.01) * weight + bias
    np.testing.assert_allclose(backend.layer_norm(x, weight, bias, eps=0.01), expected, rtol=1e-12)
    np.testing.assert_allclose(backend.layer_norm(x, eps=0.01) * weight + bias, expected, rtol=1e-12)
    np.testing.assert_allclose(backend.layer_norm(x, bias=bias, eps=0.01), (expected - bias) / weight + bias)


@pytest.mark.parametrize("places", [(), (1,), (5,), (3, 40)])
def test_batch_norm_is_by_channel(backend, places):
    x = np.random.default_rng(0).standard_normal((70, 3, *places))
    mean, variance = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.5])
    weight, bias = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, -1.0])
    running = mean.copy(), variance.copy()
    parameters = (weight, bias, *running)
    y, *stats = backend.batch_norm(x, *parameters, training=True, momentum=0.25, return_stats=True)
    for channel in range(3):
        values = x[:, channel]
        scale = 1 / math.sqrt(values.var() + 1e-5)
        expected = (values - values.mean()) * scale * weight[channel] + bias[channel]
        np.testing.assert_allclose(y[:, channel], expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose([one[channel] for one in stats], [values.mean(), scale])
        moved = [0.75 * mean[channel] + 0.25 * values.mean(), 0.75 * variance[channel]]
        moved[1] += 0.25 * values.var(ddof=1)
        np.testing.assert_allclose([one[channel] for one in running], moved)


def test_batch_norm_of_a_trained_network(backend, dtype):
    """Constants of each channel; read-only statistics and batches of none or one will do."""
    parameters = [np.array(one, dtype) for one in ([2, 1], [1, 0], [3, -1], [4 - 1e-5, 1])]
    parameters[2].flags.writeable = False
    y = backend.batch_norm(np.array([[5, 1]], dtype), *parameters, training=False)
    np.testing.assert_allclose(y, [[3, 2]], rtol=1e-5)
    assert backend.batch_norm(np.empty((0, 2, 7), dtype), *parameters, training=False).shape == (0, 2, 7)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 3, 1), (4, 3, 0)])
def test_one_value_has_no_variance(backend, shape):
    parameters = [np.ones(3) for _ in range(4)]
    with pytest.raises(ValueError, match="batch_norm: x "):
        backend.batch_norm(np.zeros(shape), *parameters, training=True)
    assert all(np.all(one == 1) for one in parameters)


def test_a_large_mean_costs_no_digits(backend):
    """Deviations of 1 around a million, as float32 can hold them."""
    x = (1e6 + np.random.default_rng(0).integers(-2, 3, (64, 96))).astype(np.float32)
    exact = x.astype(np.float64) - 1e6
    rows = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    columns = (exact - exact.mean(0)) / exact.std(0)
    np.testing.assert_allclose(backend.layer_norm(x, eps=0), rows, rtol=0, atol=0.05)
    parameters = [np.full(96, value, np.float32) for value in (1, 0, 0, 1)]
    y = backend.batch_norm(x, *parameters, training=True, eps=0)
    np.testing.assert_allclose(y, columns, rtol=0, atol=0.05)


# ----------------------------------------------------------------------------------------------------
# The recurrent layer


@pytest.mark.parametrize(("nonlinearity", "f"), [("tanh", np.tanh), ("relu", lambda z: np.maximum(z, 0))])
def test_rnn_is_a_loop(backend, nonlinearity, f):
    rng = np.random.default_rng(0)
    shapes = ((6, 4, 3), (5, 3), (5, 5), (5,), (4, 5))
    x, weight_ih, weight_hh, bias, state = arguments = [rng.uniform(-1, 1, shape) for shape in shapes]
    outputs, h_n = backend.rnn(*arguments, nonlinearity=nonlinearity)
    for step in range(6):
        state = f(weight_ih @ x[step].T + weight_hh @ state.T + bias[:, None]).T
        np.testing.assert_allclose(outputs[step], state, rtol=1e-12)
    np.testing.assert_array_equal(h_n, outputs[-1])
    assert not np.shares_memory(h_n, outputs)


def test_rnn_without_steps(backend, dtype):
    """The states stay, and so do their gradients."""
    rng = np.random.default_rng(0)
    shapes = ((0, 4, 3), (5, 3), (5, 5), (5,), (4, 5))
    x, weight_ih, weight_hh, bias, h0 = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    outputs, h_n = backend.rnn(x, weight_ih, weight_hh, bias, h0)
    assert outputs.shape == (0, 4, 5)
    np.testing.assert_array_equal(h_n, h0)
    *gradients, grad_h0 = backend.rnn_backward(outputs, x, weight_ih, weight_hh, h0, outputs, h0)
    assert not any(np.any(gradient) for gradient in gradients)
    np.testing.assert_array_equal(grad_h0, h0)


def test_the_gradient_of_the_last_state_is_that_of_the_last_output(backend):
    case = testing.make_case(KERNELS["rnn_backward"])
    arguments = case.fresh()
    last = arguments.pop("grad_h_n")
    expected = backend.rnn_backward(**arguments, grad_h_n=last)
    arguments["grad_outputs"][-1] += last
    for result, right in zip(backend.rnn_backward(**arguments), expected, strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-12, atol=1e-14)


def test_needs_of_rnn_are_five_bools(backend):
    arguments = testing.make_case(KERNELS["rnn_backward"]).fresh()
    expected = "expected five bools, for the gradients of x, weight_ih, weight_hh, bias and h0"
    with pytest.raises(ValueError, match=f"needs is .*; {expected}"):
        backend.rnn_backward(**arguments, needs=(True, True, True))
    with pytest.raises(TypeError, match=f"needs is True; {expected}"):
        backend.rnn_backward(**arguments, needs=True)
    with pytest.raises(TypeError, match="needs is 1; expected"):
        backend.rnn_backward(**arguments, needs=(True, True, True, True, 1))
    everything = backend.rnn_backward(**arguments)
    some = backend.rnn_backward(**arguments, needs=[False, True, True, True, False])
    assert some[0] is some[4] is None
    for one, same in zip(some[1:4], everything[1:4], strict=True):
        np.testing.assert_array_equal(one, same)


# ----------------------------------------------------------------------------------------------------
# Dropout


def splitmix(seed, number):
    """Word `number`, counted from 1, of the generator with this state, as its authors print it."""
    word = 2**64 - 1
    z = (seed + number * 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return z ^ (z >> 31)


def test_the_random_words_are_those_of_splitmix():
    assert splitmix(1234567, 1) == 6457827717110365317
    assert splitmix(1234567, 2) == 3203168211198807973


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (1, 5), (2**64 - 1, 2**64 - 2)])
def test_an_element_is_kept_where_its_word_is_large(backend, dtype, seed, offset):
    state = splitmix(seed, 1)
    words = [splitmix(state, offset + i) for i in range(100)]
    for p in (0.25, 1 / 3):
        kept = backend.dropout(np.ones(100, dtype), p=p, seed=seed, offset=offset) > 0
        assert kept.tolist() == [word / 2**64 >= p for word in words]


def test_the_stream_of_masks_goes_on(backend, dtype):
    x = np.arange(1, 50_001, dtype=dtype)
    whole = backend.dropout(x, p=0.3, seed=11)
    parts = [
        backend.dropout(x[start : start + 9999], p=0.3, seed=11, offset=start)
        for start in range(0, x.size, 9999)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(backend.dropout_backward(x, p=0.3, seed=11), whole)


def test_dropout_keeps_what_it_says(backend):
    """As many as p says, and independent of the neighbours and of the masks of neighbouring seeds."""
    ones = np.ones(400_000)
    masks = [backend.dropout(ones, p=0.3, seed=seed) > 0 for seed in range(4)]
    for mask in masks:
        assert abs(mask.mean() - 0.7) < 5 * math.sqrt(0.21 / ones.size)
        assert abs(np.mean(mask[1:] & mask[:-1]) - 0.49) < 0.005
    for one, other in itertools.combinations(masks, 2):
        assert abs(np.mean(one & other) - 0.49) < 0.005


def test_what_is_dropped_is_zero(backend, dtype):
    x = np.array([np.nan, np.inf, -np.inf, -1], dtype)
    np.testing.assert_array_equal(backend.dropout(x, p=1.0, seed=0), np.zeros(4))
    np.testing.assert_array_equal(backend.dropout(x, p=0.0, seed=0), x)
