"""Optimizers on networks, and schedules."""

import math

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn._contract import KERNELS

OPTIMIZERS = {
    "sgd": lambda params: optim.SGD(params, 0.1),
    "decay": lambda params: optim.SGD(params, 0.1, weight_decay=0.01),
    "momentum": lambda params: optim.SGD(params, 0.05, momentum=0.9),
    "nesterov": lambda params: optim.SGD(params, 0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda params: optim.Adagrad(params, 0.5),
    "rmsprop": lambda params: optim.RMSprop(params, 0.02, alpha=0.9),
    "adam": lambda params: optim.Adam(params, 0.1),
    "amsgrad": lambda params: optim.Adam(params, 0.1, amsgrad=True),
    "adamw": lambda params: optim.AdamW(params, 0.1),
    "newton": lambda params: optim.Newton(params),
}


def a_line():
    """A model, y = 2 x_0 - x_1 + 0.5, and the function that sets the gradients of its mean squared error."""
    model = nn.Sequential(nn.Linear(2, 1, dtype=np.float64)).initialize(random_state=0)
    x = np.random.default_rng(0).normal(size=(50, 2))
    target = x @ np.array([[2.0], [-1.0]]) + 0.5

    def gradients():
        model.parameters().zero_grad()
        loss, grad = nn.MSELoss().value_and_grad(model(x), target)
        model.backward(grad, needs_grad_x=False)
        return loss

    return model, gradients


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_finds_the_line(name):
    model, gradients = a_line()
    optimizer = OPTIMIZERS[name](model.parameters())
    first = gradients()
    for _ in range(1 if name == "newton" else 200):
        gradients()
        optimizer.step(gradients)
    assert gradients() < (1e-15 if name == "newton" else 1e-3 * first)


class Counted:
    """A kernel that notes its calls."""

    def __init__(self, name, kernel, calls):
        self.name, self.kernel, self.calls = name, kernel, calls

    def __call__(self, *arguments, **options):
        self.calls.append(self.name)
        self.kernel(*arguments, **options)


def test_a_step_is_one_call_of_a_kernel(monkeypatch):
    steps = [name for name, kernel in KERNELS.items() if kernel.family == "optimizers"]
    calls = []
    for name in steps:
        kernel = getattr(fastnn, name)
        monkeypatch.setattr(fastnn, name, Counted(name, kernel, calls))
    for make in (value for name, value in OPTIMIZERS.items() if name != "newton"):
        make(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).parameters()).step()
    assert len(calls) == len(OPTIMIZERS) - 1
    assert set(calls) == set(steps)


@pytest.mark.parametrize("name", ["momentum", "amsgrad"])
def test_state_goes_on_where_it_was(name):
    model, gradients = a_line()
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(5):
        gradients()
        optimizer.step()
    optimizer.lr = 0.07
    weights, state = model.state_dict(), optimizer.state_dict()
    other, other_gradients = a_line()
    follower = OPTIMIZERS[name](other.parameters())
    other.load_state_dict(weights)
    follower.load_state_dict(state)
    for compute, one in ((gradients, optimizer), (other_gradients, follower)):
        compute()
        one.step()
    np.testing.assert_array_equal(other.parameters().flats[0].data, model.parameters().flats[0].data)
    for change in ({"0.exp_avg": np.ones(1)}, {"0.velocity": np.ones(1)}, {"more": np.ones(1)}):
        with pytest.raises(ValueError, match="expected"):
            follower.load_state_dict(state | change)


def test_some_of_the_parameters_can_be_left_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)).initialize(random_state=0)
    before = model.state_dict()
    optimizer = optim.SGD([*model[0].parameters(), *model[2].parameters()], 0.1)
    model.parameters().flats[0].grad.fill(1)
    optimizer.step()
    changed = {name for name, array in model.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == {"0.weight", "0.bias", "2.weight", "2.bias"}
    optimizer.zero_grad()
    assert model[1].weight.grad.all()
    assert not model[2].weight.grad.any()


def test_an_optimizer_of_moved_parameters_says_so():
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), 0.1)
    nn.Sequential(layer, nn.Linear(2, 2)).parameters()
    with pytest.raises(RuntimeError, match="have moved"):
        optimizer.step()


def test_newton_with_damping_is_shorter_and_refuses_what_it_cannot_do():
    model, gradients = a_line()
    start = model.parameters().flats[0].data.copy()
    gradients()
    grad = model.parameters().flats[0].grad.copy()
    optim.Newton(model.parameters(), damping=1e6).step(gradients)
    np.testing.assert_allclose(model.parameters().flats[0].data, start - grad / 1e6, rtol=1e-4)
    with pytest.raises(TypeError, match="closure is missing"):
        optim.Newton(model.parameters()).step()
    with pytest.raises(ValueError, match="not all float64"):
        optim.Newton(nn.Linear(2, 1).parameters())
    with pytest.raises(ValueError, match="singular"):
        optim.Newton(nn.Linear(2, 1, dtype=np.float64).parameters()).step(lambda: None)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, -1),
        lambda p: optim.SGD(p, 0.1, nesterov=True),
        lambda p: optim.SGD(p, math.nan),
        lambda p: optim.RMSprop(p, eps=-1),
    ],
)
def test_bad_options_are_errors(make):
    with pytest.raises(ValueError, match="expected"):
        make(nn.Linear(1, 1).parameters())


def test_schedules():
    schedules = {
        optim.step_decay(1, every=2, factor=0.5): [1, 1, 0.5, 0.5, 0.25],
        optim.exponential_decay(1, factor=0.5): [1, 0.5, 0.25, 0.125, 0.0625],
        optim.cosine_decay(1, length=2): [1, 0.5, 0, 0, 0],
        optim.cosine_decay(3, length=2, lowest=1): [3, 2, 1, 1, 1],
        optim.inverse_time_decay(1, decay=1): [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5],
    }
    for schedule, rates in schedules.items():
        assert [schedule(t) for t in range(5)] == pytest.approx(rates)
