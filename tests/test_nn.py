"""Layers, losses and networks: gradients against central differences, names, modes, copies, errors."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import answer

import fastnn
from fastnn import init, nn
from fastnn._contract import KERNELS
from fastnn_ext.checks.activations import FUSABLE

X = np.float64
STEP = 1e-6

#: A model for each layer and each way through it, with the shape of its input.
MODELS = {
    "linear": (lambda: nn.Linear(4, 3, dtype=X), (5, 4)),
    "linear of a sequence": (lambda: nn.Linear(4, 3, bias=False, dtype=X), (2, 3, 4)),
    **{
        f"linear {name}": (lambda name=name: nn.Linear(4, 3, activation=name, dtype=X), (5, 4))
        for name in FUSABLE
        if name
    },
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), groups=2, dtype=X), (2, 4, 7, 6)),
    "conv dilated": (lambda: nn.Conv2d(2, 3, (2, 3), dilation=2, padding="same", dtype=X), (2, 2, 6, 7)),
    "conv relu": (lambda: nn.Conv2d(2, 3, 3, activation="relu", dtype=X), (2, 2, 5, 5)),
    "conv mish": (lambda: nn.Conv2d(2, 3, 3, bias=False, activation="mish", dtype=X), (2, 2, 5, 5)),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1), (2, 3, 7, 6)),
    "average pool": (lambda: nn.AvgPool2d((2, 3), padding=1), (2, 3, 7, 6)),
    "global average pool": (nn.GlobalAvgPool2d, (2, 3, 4, 5)),
    "flatten": (nn.Flatten, (2, 3, 4, 5)),
    "batch norm": (lambda: nn.BatchNorm1d(4, dtype=X), (5, 4)),
    "batch norm of a sequence": (lambda: nn.BatchNorm1d(3, eps=0.1, affine=False, dtype=X), (2, 3, 4)),
    "batch norm of images": (lambda: nn.BatchNorm2d(3, momentum=None, dtype=X), (2, 3, 4, 2)),
    "layer norm": (lambda: nn.LayerNorm(4, dtype=X), (2, 3, 4)),
    "layer norm of two axes": (lambda: nn.LayerNorm((3, 4), bias=False, eps=0.1, dtype=X), (2, 3, 4)),
    "layer norm alone": (lambda: nn.LayerNorm((4,), elementwise_affine=False), (5, 4)),
    "rnn": (lambda: nn.RNN(4, 3, dtype=X), (2, 5, 4)),
    "rnn of layers": (lambda: nn.RNN(2, 3, 3, "relu", dtype=X), (2, 4, 2)),
    "rnn with steps first": (lambda: nn.RNN(2, 3, 2, bias=False, batch_first=False, dtype=X), (4, 2, 2)),
    "last step": (nn.Last, (2, 3, 4)),
    "last label": (nn.Last, (2, 3)),
    "many to many": (
        lambda: nn.Sequential(nn.RNN(3, 4, dtype=X), nn.LayerNorm(4, dtype=X), nn.Linear(4, 2, dtype=X)),
        (2, 3, 3),
    ),
    "many to one": (
        lambda: nn.Sequential(
            nn.Linear(2, 3, activation="relu", dtype=X),
            nn.RNN(3, 4, dtype=X),
            nn.RNN(4, 3, dtype=X),
            nn.Last(),
            nn.Linear(3, 1, dtype=X),
        ),
        (3, 4, 2),
    ),
    "maxima of activations": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, activation="tanh", dtype=X),
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(2, 3, 2, dtype=X),
            nn.Sigmoid(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 2, 1, activation="gelu", dtype=X),
            nn.MaxPool2d(2, 1),
        ),
        (2, 1, 9, 9),
    ),
    "softmax": (nn.Softmax, (3, 4)),
    "log softmax": (lambda: nn.LogSoftmax(axis=0), (3, 4)),
    "leaky relu": (lambda: nn.LeakyReLU(0.3), (3, 4)),
    "gelu": (lambda: nn.GELU("tanh"), (3, 4)),
    "network": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, dtype=X),
            nn.BatchNorm2d(4, dtype=X),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 3, 2, dtype=X),
            nn.ELU(0.5),
            nn.Flatten(),
            nn.LayerNorm(12, dtype=X),
            nn.Sequential(nn.Linear(12, 5, dtype=X), nn.SiLU(), nn.Linear(5, 2, activation="tanh", dtype=X)),
        ),
        (3, 1, 6, 6),
    ),
}
LOSSES = (nn.CrossEntropyLoss, nn.MSELoss, nn.HalfSquaredError, nn.BCELoss, nn.BCEWithLogitsLoss)


def small_network(**options):
    layers = nn.Linear(3, 4, **options), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2, **options)
    return nn.Sequential(*layers).initialize(random_state=0)


def normalised_network(dtype=np.float32):
    """Some steps of training behind it, so that its running statistics are not those of the beginning."""
    model = nn.Sequential(
        nn.BatchNorm1d(3, affine=False, dtype=dtype),
        nn.Linear(3, 4, dtype=dtype),
        nn.BatchNorm1d(4, momentum=0.3, dtype=dtype),
        nn.ReLU(),
        nn.LayerNorm(4, dtype=dtype),
        nn.Linear(4, 2, dtype=dtype),
    ).initialize(random_state=0)
    rng = np.random.default_rng(1)
    for _ in range(3):
        model(rng.normal(2, 3, (8, 3)))
    return model


def sequence_network():
    layers = nn.RNN(3, 4, num_layers=2), nn.BatchNorm1d(5), nn.Last(), nn.LayerNorm(4), nn.Linear(4, 2)
    return nn.Sequential(*layers).initialize(random_state=0)


def differences(function, array):
    """Central differences of a scalar function at each element of an array, which is changed for it and put back."""
    slopes = np.empty(array.shape)
    for at in np.ndindex(array.shape):
        middle = array[at]
        array[at] = middle + STEP
        above = function()
        array[at] = middle - STEP
        slopes[at] = (above - function()) / (2 * STEP)
        array[at] = middle
    return slopes


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_central_differences(name):
    make, shape = MODELS[name]
    rng = np.random.default_rng(0)
    model, x = make().initialize(init.normal(0.5), random_state=rng), rng.normal(size=shape)
    for parameter in model.parameters():
        parameter.data[...] += 0.1 * rng.normal(size=parameter.shape)
    weights = rng.normal(size=model.output_shape(shape))

    def loss():
        return float(np.sum(weights * model.forward(x, training=True)))

    y = model(x)
    assert y.shape == model.output_shape(shape)
    if not any(model.named_buffers()):
        np.testing.assert_allclose(model.forward(x, training=False), y, rtol=1e-12, atol=1e-12)
    grad_x = model.backward(weights)
    np.testing.assert_allclose(grad_x, differences(loss, x), rtol=1e-6, atol=1e-8)
    for parameter in model.parameters():
        np.testing.assert_allclose(parameter.grad, differences(loss, parameter.data), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_losses(loss):
    rng = np.random.default_rng(0)
    output, target = rng.uniform(0.1, 0.9, (4, 3)), rng.uniform(0.1, 0.9, (4, 3))
    value, grad = loss().value_and_grad(output, target)
    assert value == pytest.approx(loss()(output, target))
    np.testing.assert_allclose(
        grad, differences(lambda: loss()(output, target), output), rtol=1e-6, atol=1e-9
    )


def test_losses_stay_in_the_dtype_of_the_output():
    for loss in LOSSES:
        value, grad = loss().value_and_grad(np.full((2, 2), 0.5, np.float32), np.eye(2))
        assert value.dtype == grad.dtype == np.float32
    value, grad = nn.CrossEntropyLoss(label_smoothing=0.1).value_and_grad(np.eye(2), [0, 1])
    assert value > 0


def test_accuracy():
    output = np.array([[0.9, 0.2], [0.6, 0.7]])
    assert nn.CrossEntropyLoss().accuracy(output, np.array([0, 0])) == 0.5
    assert nn.CrossEntropyLoss().accuracy(output, np.eye(2)) == 1
    assert nn.CrossEntropyLoss().accuracy(output[np.newaxis], np.array([[0, 0]])) == 0.5
    assert nn.BCELoss().accuracy(output, np.array([[1, 0], [1, 0]])) == 0.5
    assert nn.BCEWithLogitsLoss().accuracy(output, np.ones((2, 2))) == 1
    assert nn.MSELoss().accuracy(output, output) is None


def test_there_is_a_layer_for_each_activation():
    layers = {
        layer.kernel
        for layer in vars(nn).values()
        if hasattr(layer, "kernel") and issubclass(layer, nn.Layer)
    }
    family = {
        name for name, kernel in KERNELS.items() if kernel.family == "activations" and not kernel.forward
    }
    assert family == layers - {"linear", "conv2d"}


def test_an_activation_that_follows_is_fused_and_changes_nothing(monkeypatch):
    written = nn.Sequential(
        nn.Linear(3, 4, dtype=X), nn.Sigmoid(), nn.Linear(4, 2, dtype=X), nn.LeakyReLU(0.5)
    )
    fused = nn.Sequential(
        nn.Linear(3, 4, activation="sigmoid", dtype=X), nn.Linear(4, 2, dtype=X), nn.LeakyReLU(0.5)
    )
    assert list(written.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    fused.load_state_dict(dict(zip(fused.state_dict(), written.state_dict().values(), strict=True)))
    x = np.random.default_rng(0).normal(size=(5, 3))
    monkeypatch.setattr(fastnn, "sigmoid", None)  # would be a TypeError if it were called
    np.testing.assert_array_equal(written(x), fused(x))
    np.testing.assert_array_equal(written.backward(np.ones((5, 2))), fused.backward(np.ones((5, 2))))


def test_the_derivative_of_an_activation_is_applied_to_maxima_alone(monkeypatch):
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 2, activation="relu")
    model = nn.Sequential(*layers, nn.MaxPool2d(3, 2, 1), nn.Conv2d(2, 1, 1), nn.ReLU())
    model.initialize(random_state=0)
    x, kernel, shapes = np.random.default_rng(0).normal(size=(3, 1, 12, 12)), fastnn.relu_backward, []

    def noting(grad, y, out):
        shapes.append(grad.shape)
        return kernel(grad, y, out=out)

    monkeypatch.setattr(fastnn, "relu_backward", noting)
    y = model(x)
    model.backward(y)
    assert shapes == [(3, 1, 2, 2), (3, 2, 2, 2), (3, 2, 5, 5)]
    assert model[2]._scratch._buffers.keys() == {
        "y",
        "maxima",
    }  # the gradient is where the layer before had its output
    gradients = model.parameters().flats[0].grad.copy()
    model.parameters().zero_grad()
    z, grad = x, y
    for layer in model:  # each for itself
        z = layer(z)
    for layer in reversed(model.layers):
        grad = layer.backward(grad)
    np.testing.assert_allclose(model.parameters().flats[0].grad, gradients, rtol=1e-6, atol=1e-7)


def test_the_chosen_backend_is_used():
    model, x = small_network(), np.ones((2, 3))
    chosen, y = fastnn.report()[0].backend, model.predict(x)
    try:
        fastnn.set_backend("numpy")
        np.testing.assert_allclose(model.predict(x), y, rtol=1e-5, atol=1e-6)
    finally:
        fastnn.set_backend(chosen)


def test_parameters_and_gradients_are_one_buffer():
    model = small_network()
    parameters = model.parameters()
    (flat,) = parameters.flats
    assert flat.data.size == parameters.size == 3 * 4 + 4 + 4 * 2 + 2
    flat.data[...], flat.grad[...] = 7, 8
    assert all((one.data == 7).all() and (one.grad == 8).all() for one in parameters)
    parameters.zero_grad()
    assert not parameters.flats[0].grad.any()
    inner = model[3].parameters()
    assert np.shares_memory(inner.flats[0].data, flat.data)
    assert not inner.have_moved
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=X), nn.Linear(2, 2))
    assert [one.data.dtype for one in mixed.parameters().flats] == [np.float32, np.float64, np.float32]
    assert mixed(np.ones((1, 2))).dtype == np.float32
    assert mixed.backward(np.ones((1, 2), np.float32)).dtype == np.float32


def test_the_first_gradient_after_zero_grad_replaces_what_was_there():
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Conv2d(2, 2, 1, bias=False), nn.Flatten()),
        *(nn.Linear(8, 3, activation="tanh"), nn.Linear(3, 2, bias=False)),
    )
    parameters, x = model.parameters(), np.random.default_rng(0).normal(size=(4, 1, 3, 3))
    (flat,) = parameters.flats

    def go_through():
        model(x)
        model.backward(np.ones((4, 2), np.float32))
        return parameters.flats[0].grad.copy()

    first = go_through()
    parameters.zero_grad()
    flat.grad.fill(np.nan)
    np.testing.assert_array_equal(go_through(), first)
    np.testing.assert_array_equal(go_through(), 2 * first)


def test_a_layer_keeps_its_values_when_it_joins_a_network():
    layer = nn.Linear(2, 3)
    weight, before = layer.weight.data.copy(), layer.parameters()
    model = nn.Sequential(layer, nn.Linear(3, 2))
    assert not before.have_moved
    model(np.zeros((1, 2)))
    assert before.have_moved
    assert len(model.parameters().flats) == 1
    np.testing.assert_array_equal(layer.weight.data, weight)


def test_a_description_takes_no_memory():
    layers = nn.Linear(2**30, 2**30), nn.Conv2d(2**20, 2**20, 1000)
    model = nn.Sequential(*layers, nn.BatchNorm1d(2**30), nn.LayerNorm((2**30, 2**30)))
    parameters = (2**60 + 2**30) + (2**40 * 10**6 + 2**20) + 2 * 2**30 + 2 * 2**60
    assert model.summary().endswith(f"{parameters:,}")


def test_results_are_the_callers_and_buffers_are_used_again():
    model, rng = small_network().train(), np.random.default_rng(0)
    first = model(rng.normal(size=(4, 3)))
    kept = first.copy()
    inner = model.forward(np.ones((4, 3)), training=True)
    np.testing.assert_array_equal(first, kept)
    assert np.shares_memory(inner, model.forward(np.zeros((2, 3)), training=True))
    grad = np.ones((2, 2), np.float32)
    grad_x = model.backward(grad)
    assert (grad == 1).all()
    assert grad_x.shape == (2, 3)


def test_gradients_are_added_and_backward_needs_a_forward():
    model = nn.Linear(2, 2, dtype=X)
    for _ in range(2):
        model(np.ones((1, 2)))
        assert model.backward(np.ones((1, 2)), needs_grad_x=False) is None
    np.testing.assert_array_equal(model.weight.grad, np.full((2, 2), 2))
    model.parameters().zero_grad()
    assert not model.weight.grad.any()
    model.parameters().zero_grad()
    model(np.ones((1, 2)))
    model.backward([[1, 1]])
    np.testing.assert_array_equal(model.bias.grad, [1, 1])
    with pytest.raises(RuntimeError, match=r"Linear\(2, 2, dtype=float64\): backward has nothing"):
        model.backward(np.ones((1, 2)))
    model.eval()(np.ones((1, 2)))
    with pytest.raises(RuntimeError, match="training mode"):
        model.backward(np.ones((1, 2)))


def test_forward_keeps_only_what_backward_needs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model(np.ones((5, 2, 2)))
    assert set(model[1]._scratch._buffers) == {"y"}
    model.backward(np.ones((5, 2)))
    assert set(model[1]._scratch._buffers) == {"y"}  # the gradient is there
    model(np.ones((5, 2, 2)))
    assert model[2]._saved is None
    assert model[3]._saved[1] is None
    model.eval()
    model.backward(np.ones((5, 2)), needs_grad_x=False)
    model(np.ones((5, 2, 2)))
    assert model[1]._saved is None


def test_dropout():
    layer, x = nn.Dropout(0.25), np.ones((100, 100))
    layer.seed(1)
    y = layer(x)
    assert set(np.unique(y)) == {0, 1 / 0.75}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(layer.backward(x), y)
    layer.seed(1)
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_array_equal(layer.eval()(x), x)
    assert not nn.Dropout(1)(x).any()
    with pytest.raises(ValueError, match="dropout: p is"):
        nn.Dropout(1.5)


@pytest.mark.parametrize("momentum", [0.25, None])
def test_batch_norm_keeps_running_statistics(momentum):
    layer, rng = nn.BatchNorm2d(3, momentum=momentum, dtype=X), np.random.default_rng(0)
    mean, variance = np.zeros(3), np.ones(3)
    for step in range(1, 4):
        x = rng.normal(size=(4, 3, 2, 5)) + np.arange(3).reshape(3, 1, 1)
        np.testing.assert_allclose(layer(x).mean((0, 2, 3)), 0, atol=1e-12)
        share = 1 / step if momentum is None else momentum
        mean += share * (x.mean((0, 2, 3)) - mean)
        variance += share * (x.var((0, 2, 3), ddof=1) - variance)
    np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.data, variance, rtol=1e-12)
    assert layer.num_batches_tracked.data == 3
    expected = (x - mean.reshape(3, 1, 1)) / np.sqrt(variance.reshape(3, 1, 1) + 1e-5)
    np.testing.assert_allclose(layer.eval()(x), expected, rtol=1e-12, atol=1e-12)
    assert layer.num_batches_tracked.data == 3
    layer.initialize()
    assert [buffer.data.tolist() for _, buffer in layer.named_buffers()] == [[0] * 3, [1] * 3, 0]


def test_buffers_are_no_parameters():
    model = normalised_network()
    names = [name for name, _ in model.named_buffers()]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert names == [f"{i}.{name}" for i in (0, 2) for name in statistics]
    assert model.parameters().size == 4 * 3 + 4 + 2 * 4 + 2 * 4 + 2 * 4 + 2
    assert len(model.parameters().flats) == 1
    assert list(model[2].state_dict()) == ["weight", "bias", *statistics]
    assert model.summary().splitlines()[1].split() == ["BatchNorm1d(3,", "affine=False)", "0"]
    before = model.state_dict()
    for flat in model.parameters().flats:
        flat.data.fill(7)
    for name, buffer in model.named_buffers():
        np.testing.assert_array_equal(buffer.data, before[name])


def test_initialisers_leave_normalisations_alone():
    model = nn.Sequential(nn.LayerNorm((2, 3)), nn.Flatten(), nn.Linear(6, 2))
    model.initialize(init.he_normal, random_state=0)
    assert (model[0].weight.data == 1).all()
    assert not model[0].bias.data.any()


def test_normalisation_without_gradients_of_the_input():
    model = normalised_network(X)
    x, grad = np.random.default_rng(0).normal(size=(5, 3)), np.ones((5, 2))
    gradients = []
    for needs_grad_x in (True, False):
        model.parameters().zero_grad()
        model(x)
        model.backward(grad, needs_grad_x=needs_grad_x)
        gradients.append(model.parameters().flats[0].grad.copy())
    np.testing.assert_array_equal(*gradients)
    first = nn.Sequential(nn.BatchNorm1d(3))
    first(x)
    assert first.backward(x, needs_grad_x=False) is None


def test_rnn_is_the_recurrence():
    rng = np.random.default_rng(0)
    model = nn.RNN(2, 3, num_layers=2, dtype=X).initialize(random_state=0)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(size=parameter.shape)
    x, state = rng.normal(size=(4, 6, 2)), model.state_dict()
    steps = x
    for i in (0, 1):
        ih, hh, b, c = (state[f"{name}_l{i}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h, outputs = np.zeros((4, 3)), []
        for t in range(6):
            h = np.tanh(steps[:, t] @ ih.T + b + h @ hh.T + c)
            outputs.append(h)
        steps = np.stack(outputs, axis=1)
    np.testing.assert_allclose(model(x), steps, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(nn.Sequential(model, nn.Last())(x), model(x)[:, -1])
    other = nn.RNN(2, 3, num_layers=2, batch_first=False, dtype=X)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x.swapaxes(0, 1)).swapaxes(0, 1), model(x))


def test_rnn_computes_the_gradients_that_are_needed_alone(monkeypatch):
    model, x = nn.RNN(2, 3, num_layers=2, bias=False), np.random.default_rng(0).normal(size=(4, 5, 2))
    kernel, asked, gradients = fastnn.rnn_backward, [], []

    def noting(*arguments, needs, **options):
        asked.append(needs)
        return kernel(*arguments, needs=needs, **options)

    monkeypatch.setattr(fastnn, "rnn_backward", noting)
    for needs_grad_x in (True, False):
        model.parameters().zero_grad()
        y = model(x)
        assert (model.backward(y, needs_grad_x=needs_grad_x) is not None) is needs_grad_x
        gradients.append(model.parameters().flats[0].grad.copy())
    np.testing.assert_array_equal(*gradients)
    upper, lower = (True, True, True, False, False), (False, True, True, False, False)
    assert asked == [upper, upper, upper, lower]


def test_rnn_begins_as_it_says():
    model = nn.RNN(9, 100, num_layers=2).initialize(random_state=0)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    assert list(model.state_dict()) == [f"{name}_l{i}" for i in (0, 1) for name in names]
    for name, array in model.state_dict().items():
        if name.startswith("weight"):
            assert array.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.05)
            assert abs(array).max() <= 0.1
        else:
            assert not array.any()
    model.initialize(init.he_normal, random_state=0)
    assert model.weight_ih_l0.data.std() == pytest.approx(np.sqrt(2 / 9), rel=0.05)


def test_rnn_uses_its_buffers_again_and_returns_arrays_of_ones_own():
    model, x = nn.RNN(2, 3, num_layers=2), np.random.default_rng(0).normal(size=(4, 5, 2))
    first = model(x)
    kept = first.copy()
    inner = model.forward(x + 1, training=True)
    assert np.shares_memory(inner, model.forward(x, training=True))
    np.testing.assert_array_equal(first, kept)
    buffers = dict(model._scratch._buffers)
    assert buffers.keys() == {"x", "states0", "states1"}
    model.backward(inner)
    model(x[:2])
    assert all(model._scratch._buffers[name] is buffer for name, buffer in buffers.items())
    assert model.eval()(x[:0]).shape == (0, 5, 3)
    assert model(x[:, :0]).shape == (4, 0, 3)
    with pytest.raises(TypeError, match="input is a masked array"):
        model(np.ma.masked_greater(x, 1))


@pytest.mark.parametrize(("make", "shape"), [(small_network, (64, 3)), (sequence_network, (64, 5, 3))])
def test_two_threads_predict_at_once(make, shape):
    model, x = make(), np.random.default_rng(0).normal(size=shape)
    model(x)
    before, expected = model.state_dict(), model.predict(x)
    with ThreadPoolExecutor(2) as pool:
        for y in pool.map(lambda size: model.predict(x, batch_size=size), [7, 64] * 20):
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_training_at_sizes_for_threads_gives_the_same_bits():
    rng = np.random.default_rng(0)
    images, rows = rng.normal(size=(16, 8, 32, 32)), rng.normal(size=(256, 768))
    sequences = rng.normal(size=(64, 12, 64))
    for x, layer in (
        (images, nn.BatchNorm2d(8)),
        (rows, nn.LayerNorm(768)),
        (sequences, nn.RNN(64, 128, num_layers=2)),
    ):
        layer.initialize(random_state=0)
        results = []
        for threads in (1, 2, 4):
            with fastnn.num_threads(threads):
                layer.parameters().zero_grad()
                y = layer(x)
                grad_x = layer.backward(y)
                gradients = [one.grad.copy() for one in layer.parameters()]
            results.append([y, grad_x, *gradients])
        for other in results[1:]:
            for one, same in zip(other, results[0], strict=True):
                np.testing.assert_array_equal(one, same)


def test_networks_are_imported_on_first_use():
    code = "import json, sys, fastnn; before = 'fastnn.nn' in sys.modules; fastnn.nn.ReLU; fastnn.trace"
    assert answer(f"{code}; print(json.dumps([before, 'fastnn.nn' in sys.modules]))") == [False, True]


def test_predict_is_evaluation_in_batches():
    model, x = small_network(), np.random.default_rng(0).normal(size=(10, 3))
    assert model.training
    np.testing.assert_allclose(model.predict(x, batch_size=3), model.eval()(x), rtol=1e-6, atol=1e-6)
    assert model.predict(np.zeros((0, 3))).shape == (0, 2)


def test_input_is_cast_to_the_dtype_of_the_parameters():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    assert model(image).dtype == model(image.astype(np.float64)).dtype == np.float32
    assert nn.ReLU()([-1, 2]).tolist() == [0, 2]
    for wrong in (image.astype(complex), np.ma.masked_equal(image.astype(float), 1)):
        with pytest.raises(TypeError):
            nn.Linear(2, 2)(wrong)


def test_copies():
    model, x = small_network().eval(), np.random.default_rng(0).normal(size=(4, 3))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.astype(np.float32)):
        np.testing.assert_array_equal(other(x), model(x))
        assert not other.training
        assert len(other.parameters().flats) == 1
        assert not np.shares_memory(other.parameters().flats[0].data, model.parameters().flats[0].data)
    wide = model.astype(np.float64)
    assert wide(x).dtype == np.float64
    np.testing.assert_allclose(wide(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "shape"), [(normalised_network, (4, 3)), (sequence_network, (4, 5, 3))])
def test_copies_have_the_running_statistics(make, shape):
    model, x = make(), np.random.default_rng(0).normal(size=shape)
    model(x)
    model.eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.astype(np.float32)):
        np.testing.assert_array_equal(other(x), model(x))
        for (name, one), (_, mine) in zip(other.named_buffers(), model.named_buffers(), strict=True):
            np.testing.assert_array_equal(one.data, mine.data, name)
            assert not np.shares_memory(one.data, mine.data)
    wide = model.astype(np.float64)
    assert wide(x).dtype == np.float64
    assert [one.dtype for _, one in wide.named_buffers()][:3] == [np.float64, np.float64, np.int64]
    np.testing.assert_allclose(wide(x), model(x), rtol=1e-5, atol=1e-5)


def test_state_dict_goes_back_in_or_changes_nothing():
    model, other = small_network(), small_network().initialize(random_state=1)
    state = model.state_dict()
    other.load_state_dict({name: array.astype(np.float64) for name, array in state.items()})
    np.testing.assert_array_equal(other.parameters().flats[0].data, model.parameters().flats[0].data)
    for change, complaint in (
        ({"0.weight": None}, "lacks 0.weight"),
        ({"9.weight": np.ones(2)}, "unknown 9.weight"),
        ({"3.bias": np.ones(3)}, r"3.bias has shape \(3,\); expected \(2,\)"),
    ):
        wrong = {"0.bias": np.full(4, 9.0), **state, **change}
        with pytest.raises(ValueError, match=complaint):
            model.load_state_dict({name: array for name, array in wrong.items() if array is not None})
        np.testing.assert_array_equal(other.parameters().flats[0].data, model.parameters().flats[0].data)


def test_summary_and_repr():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, activation="relu"), nn.MaxPool2d(2), nn.Flatten())
    lines = model.summary((32, 1, 8, 8)).splitlines()
    assert lines[0].split() == ["layer", "output", "parameters"]
    assert lines[1].startswith("Conv2d(1, 4, 3, padding=1, activation='relu')  (32, 4, 8, 8)")
    assert lines[-1].split() == ["total", "40"]
    assert eval(repr(model), vars(nn)).config.keys() == model.config.keys()


SIZES = {
    "layer 0, RNN(2, 3): input has shape (2, 2); expected (N, T, 2)": (nn.RNN(2, 3),),
    "layer 0, RNN(2, 3, batch_first=False): input has shape (2, 2); expected (T, N, 2)": (
        nn.RNN(2, 3, batch_first=False),
    ),
    "layer 0, BatchNorm1d(3): input has shape (2, 2); expected (N, 3) or (N, 3, L)": (nn.BatchNorm1d(3),),
    "layer 0, BatchNorm2d(2): input has shape (2, 2); expected (N, 2, H, W)": (nn.BatchNorm2d(2),),
    "layer 1, LayerNorm((1, 2)): input has shape (2, 2); expected (..., 1, 2)": (
        nn.Flatten(),
        nn.LayerNorm((1, 2)),
    ),
    "layer 1, Linear(4, 5): input has shape (2, 3); expected (..., 4)": (nn.Linear(2, 3), nn.Linear(4, 5)),
    "layer 0, Conv2d(3, 8, 3): input has shape (2, 2); expected (N, 3, H, W)": (nn.Conv2d(3, 8, 3),),
    "layer 2, layer 0, Linear(9, 1): input has shape (2, 2); expected (..., 9)": (
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(9, 1)),
    ),
}


@pytest.mark.parametrize("message", SIZES)
def test_sizes_that_do_not_fit_name_the_layer(message):
    model = nn.Sequential(*SIZES[message])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model(np.zeros((2, 2)))


def test_sequences_without_a_step_have_no_last_one():
    message = r"layer 1, Last\(\): input has shape \(4, 0, 3\); expected \(N, T, \.\.\.\) with T at least 1"
    with pytest.raises(ValueError, match=message):
        nn.Sequential(nn.RNN(2, 3), nn.Last())(np.zeros((4, 0, 2)))
    with pytest.raises(ValueError, match=r"expected \(N, T, \.\.\.\)"):
        nn.Last()(np.zeros(3))


def test_a_batch_that_is_too_small_to_train_on_names_the_layer():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    model.check_batch((1, 1, 4, 3))
    message = r"^layer 1, BatchNorm2d\(2\): input has shape \(1, 2, 1, 1\); expected at least two values"
    with pytest.raises(ValueError, match=message):
        model.check_batch((1, 1, 3, 3))
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"^BatchNorm2d\(2\): input has shape"):
        model(np.zeros((1, 1, 3, 3)))
    assert model.eval()(np.zeros((1, 1, 3, 3))).shape == (1, 2)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_an_image_that_is_too_small_names_the_layer():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(4))
    with pytest.raises(ValueError, match=r"layer 1, MaxPool2d: kernel_size spans"):
        model.output_shape((1, 1, 5, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(0, 2),
        lambda: nn.Linear(2, 2, activation="rleu"),
        lambda: nn.Linear(2, 2, dtype=np.int32),
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        lambda: nn.Conv2d(3, 3, 3, stride=0),
        lambda: nn.MaxPool2d(2, padding=-1),
        lambda: nn.MaxPool2d(2, 0),
        lambda: nn.AvgPool2d(2, ()),
        lambda: nn.GELU("sometimes"),
        lambda: nn.RNN(2, 0),
        lambda: nn.RNN(2, 3, 0),
        lambda: nn.RNN(2, 3, nonlinearity="sigmoid"),
        lambda: nn.RNN(2, 3, dtype=np.int64),
        lambda: nn.BatchNorm1d(0),
        lambda: nn.BatchNorm1d(2, momentum=1.5),
        lambda: nn.BatchNorm2d(2, eps=-1),
        lambda: nn.LayerNorm(()),
        lambda: nn.LayerNorm((2, 0)),
        lambda: nn.LayerNorm(2, dtype=np.float16),
        lambda: nn.Sequential(*[nn.ReLU()] * 2),
    ],
)
def test_bad_arguments_are_errors_at_once(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="layer 1 is a builtin_function_or_method"):
        nn.Sequential(nn.ReLU(), abs)
    with pytest.raises(TypeError):
        nn.ReLU(3)


def test_initialisers():
    shape, rng = (200, 100, 2, 2), np.random.default_rng(0)
    stds = {
        init.normal(0.3): 0.3,
        init.uniform(0.3): 0.3 / np.sqrt(3),
        init.xavier_normal: np.sqrt(2 / 1200),
        init.xavier_uniform: np.sqrt(2 / 1200),
        init.he_normal: np.sqrt(2 / 400),
        init.he_uniform: np.sqrt(2 / 400),
        init.zeros: 0,
        init.ones: 0,
    }
    for initializer, std in stds.items():
        assert initializer(shape, rng).std() == pytest.approx(std, rel=0.02)
        np.testing.assert_array_equal(initializer(shape, 1), initializer(shape, 1))
    assert np.abs(init.he_uniform(shape, rng)).max() <= np.sqrt(6 / 400)
    with pytest.raises(ValueError, match="init: shape is"):
        init.he_normal((3,))
    model = small_network().initialize(init.xavier_normal, random_state=3)
    again = small_network().initialize(init.xavier_normal, random_state=3)
    np.testing.assert_array_equal(model[0].weight.data, again[0].weight.data)
    assert not model[0].bias.data.any()


def test_the_perceptron_rule():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for target in ([0, 0, 0, 1], [0, 1, 1, 1]):
        unit = nn.Perceptron(eta=0.5)
        assert unit.fit(x, target)[-1] == 0
        assert unit.predict(x).tolist() == target
    assert 0 not in nn.Perceptron().fit(x, [0, 1, 1, 0], epochs=50)
    # One step by hand: W_0 = 0 fires for x = (1, 1), which is wrong, so W = 0 - eta x.
    unit = nn.Perceptron(eta=0.1, threshold=0)
    unit.fit([[1, 1]], [0], epochs=1)
    assert unit.weight.tolist() == [-0.1, -0.1]
    assert unit.bias == -0.1
    with pytest.raises(ValueError, match="other classes"):
        unit.fit(x, [0, 1, 2, 0])
    with pytest.raises(ValueError, match="has shape"):
        unit.fit(x, [0, 1])
