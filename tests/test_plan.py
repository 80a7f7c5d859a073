"""A plan gives the bits of `predict`, for up to its batch size, with the weights it was made of."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.nn.activations import Activation


def mlp(dtype=np.float32):
    return nn.Sequential(
        nn.Linear(12, 300, dtype=dtype), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(300, 5, dtype=dtype)
    )


def convolutions(dtype=np.float32):
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, activation="tanh", dtype=dtype),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(6, 4, 3, padding="same", groups=2, bias=False, dtype=dtype), nn.GELU("tanh")),
        nn.AvgPool2d(2, stride=1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * 9, 7, activation="relu", dtype=dtype),
        nn.Softmax(),
    )


#: Makes a model of that dtype, and the shape of a sample.
MODELS = {
    "mlp": (mlp, (12,)),
    "convolutions": (convolutions, (2, 8, 8)),
    "a mean of each channel": (
        lambda dtype: nn.Sequential(nn.Conv2d(2, 3, 1, dtype=dtype), nn.GlobalAvgPool2d(), nn.Softmax()),
        (2, 5, 3),
    ),
    "views first": (
        lambda dtype: nn.Sequential(nn.Dropout(0.1), nn.Flatten(), nn.Linear(12, 5, dtype=dtype)),
        (3, 2, 2),
    ),
    "rows of rows": (lambda dtype: nn.Sequential(nn.Linear(4, 3, dtype=dtype), nn.ReLU()), (2, 4)),
    "one layer": (lambda dtype: nn.Linear(4, 3, dtype=dtype), (4,)),
    "mixed dtypes": (
        lambda dtype: nn.Sequential(
            nn.Linear(4, 3, dtype=dtype), nn.Linear(3, 2), nn.Linear(2, 2, dtype=dtype)
        ),
        (4,),
    ),
}


def samples(rows, shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, *shape)).astype(dtype)


def assert_same(result, expected):
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_plan_gives_the_bits_of_predict(name, backend, dtype, monkeypatch):
    for kernel in ("linear", "conv2d", "max_pool2d", "avg_pool2d", "softmax", "gelu"):
        monkeypatch.setattr(fastnn, kernel, getattr(backend, kernel))
    make, shape = MODELS[name]
    model = make(dtype).initialize(random_state=0)
    for parameter in model.parameters():
        parameter.data[...] += 0.1
    ahead, late = model.plan(20, shape), model.plan(20)
    assert (ahead.sample_shape, late.sample_shape) == (shape, None)
    for rows in (20, 1, 3, 17, 20, 0):
        x = samples(rows, shape, dtype, seed=rows)
        given, expected = x.copy(), model.predict(x)
        for plan in (ahead, late):
            assert_same(plan(x), expected)
        np.testing.assert_array_equal(x, given)


@pytest.mark.parametrize("layer", Activation.__subclasses__(), ids=lambda layer: layer.__name__)
def test_plan_of_each_activation(layer):
    x = samples(5, (7,), np.float64)
    model = nn.Sequential(layer())
    assert_same(model.plan(8)(x), model.predict(x))


def test_a_layer_that_only_goes_forward_has_a_plan():
    class Scale(nn.Layer):
        def __init__(self, factor):
            self.factor = factor

        def _forward(self, x, training):
            return x * self.factor

        def _backward(self, grad, saved, needs_grad_x):
            return grad * self.factor

        def output_shape(self, shape):
            return shape

    model = nn.Sequential(nn.Linear(4, 3), Scale(3.0), nn.Linear(3, 2)).initialize(random_state=0)
    plan = model.plan(4)
    for rows in (4, 2):
        assert_same(plan(samples(rows, (4,))), model.predict(samples(rows, (4,))))


def test_views_alone_are_of_a_copy():
    plan, x = nn.Sequential(nn.Flatten()).plan(2), samples(2, (2, 3), np.float64)
    y = plan(x)
    np.testing.assert_array_equal(y, x.reshape(2, 6))
    assert not np.shares_memory(x, y)


def test_the_next_call_overwrites_the_result_and_nothing_is_allocated():
    model = convolutions().initialize(random_state=0)
    plan, x = model.plan(6), samples(6, (2, 8, 8))
    first = plan(x)
    kept = first.copy()
    assert plan(x + 1) is first
    assert (first != kept).any()
    assert np.shares_memory(plan(x[:2]), first)
    assert_same(plan(x), kept)


def test_strides_are_as_good_as_any():
    model = mlp().initialize(random_state=0)
    x = samples(24, (12,))
    assert_same(model.plan(12)(x[::2]), model.predict(x[::2]))


def test_a_plan_keeps_the_weights_it_was_made_of():
    model, x = convolutions().initialize(random_state=0), samples(4, (2, 8, 8))
    plan, before = model.plan(4), model.predict(x)
    model.initialize(random_state=1)
    for parameter in model.parameters():
        parameter.data[...] += 1
    assert_same(plan(x), before)
    assert (model.predict(x) != before).any()
    assert_same(model.plan(4)(x), model.predict(x))


def test_a_plan_keeps_its_backend():
    model, x = mlp().initialize(random_state=0), samples(4, (12,))
    chosen, plan = fastnn.report()[0].backend, model.plan(4)
    expected = [model.predict(x[:rows]) for rows in (4, 3)]
    try:
        fastnn.set_backend("numpy")
        for y in expected:
            assert_same(plan(x[: len(y)]), y)
        assert_same(model.plan(4)(x), model.predict(x))
    finally:
        fastnn.set_backend(chosen)


def test_training_mode_does_not_matter_and_is_left_alone():
    model, x = mlp().train().initialize(random_state=0), samples(4, (12,))
    assert_same(model.plan(4)(x), model.predict(x))
    assert model.training
    model(x)
    saved = model[0]._saved
    model.plan(4)(x)
    assert model[0]._saved is saved


def test_two_threads_use_two_plans_at_once():
    model = mlp().initialize(random_state=0)
    inputs = [samples(64, (12,), seed=seed) for seed in range(2)]
    expected = [model.predict(x) for x in inputs]
    plans = [model.plan(64) for _ in inputs]

    def differing(i):
        return sum(plans[i](inputs[i]).tobytes() != expected[i].tobytes() for _ in range(300))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(differing, range(2))) == [0, 0]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0] * 12], TypeError, "plan: x is a list; expected an ndarray"),
        (np.zeros((2, 12)), TypeError, "plan: x has dtype float64; expected float32"),
        (np.zeros((2, 12), ">f4"), TypeError, "plan: x has dtype >f4; expected float32"),
        (np.zeros((2, 12), int), TypeError, "plan: x has dtype int64; expected float32"),
        (np.ma.zeros((2, 12), np.float32), TypeError, "plan: x is a MaskedArray; expected an ndarray"),
        (
            np.zeros((5, 12), np.float32),
            ValueError,
            "plan: x has shape (5, 12); expected (n, 12) with n up to 4",
        ),
        (
            np.zeros((2, 13), np.float32),
            ValueError,
            "plan: x has shape (2, 13); expected (n, 12) with n up to 4",
        ),
        (np.zeros(12, np.float32), ValueError, "plan: x has shape (12,); expected (n, 12) with n up to 4"),
        (np.zeros((), np.float32), ValueError, "plan: x has shape (); expected (n, 12) with n up to 4"),
    ],
)
def test_what_does_not_fit_is_refused(x, error, message):
    model = mlp().initialize(random_state=0)
    plan, right = model.plan(4, (12,)), samples(2, (12,))
    for _ in range(2):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            plan(x)
        assert_same(plan(right), model.predict(right))


def test_a_first_call_that_does_not_fit_settles_nothing():
    plan = mlp().plan(4)
    with pytest.raises(ValueError, match=re.escape("layer 0, Linear(12, 300): input has shape (4, 3)")):
        plan(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("plan: x has shape (); expected (n, ...) with n up to 4")):
        plan(np.zeros((), np.float32))
    assert plan.sample_shape is None
    assert plan(np.zeros((1, 12), np.float32)).shape == (1, 5)
    assert repr(plan) == "<plan for up to 4 samples of shape (12,) of float32>"


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="plan: batch_size is 0; expected"):
        mlp().plan(0)
    with pytest.raises(ValueError, match=re.escape("layer 0, Linear(12, 300): input has shape (2, 3)")):
        mlp().plan(2, (3,))
