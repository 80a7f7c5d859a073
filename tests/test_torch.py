"""Layers, losses, optimizers and weights beside PyTorch's, where PyTorch is installed."""

import numpy as np
import pytest

from fastnn import nn, optim

pytestmark = pytest.mark.torch

SMOOTH = ("GELU", "SiLU", "Mish", "Softplus", "Sigmoid", "Tanh", "Softsign")
#: A layer, PyTorch's of the same name with these arguments, and the shape of an input.
LAYERS = {
    "Linear": ((4, 3), {}, (5, 4)),
    "Linear without bias": ((4, 3), {"bias": False}, (2, 3, 4)),
    "Conv2d": ((4, 6, 3), {"stride": 2, "padding": (1, 2), "groups": 2}, (2, 4, 7, 6)),
    "Conv2d dilated": ((2, 3, (2, 3)), {"dilation": 2}, (2, 2, 6, 7)),
    "MaxPool2d": ((3, 2, 1), {}, (2, 3, 7, 6)),
    "AvgPool2d": ((2,), {"padding": 1}, (2, 3, 7, 6)),
    "Flatten": ((), {}, (2, 3, 4)),
    "BatchNorm1d": ((4,), {}, (5, 4)),
    "BatchNorm1d of a sequence": ((3,), {"momentum": None, "affine": False}, (2, 3, 4)),
    "BatchNorm2d": ((3,), {"eps": 1e-3, "momentum": 0.3}, (2, 3, 4, 5)),
    "LayerNorm": ((4,), {}, (2, 3, 4)),
    "LayerNorm of two axes": (((3, 4),), {"eps": 1e-3, "bias": False}, (2, 3, 4)),
    "LayerNorm alone": ((4,), {"elementwise_affine": False}, (3, 4)),
    "LeakyReLU": ((0.3,), {}, (3, 4)),
    "ELU": ((0.5,), {}, (3, 4)),
    "GELU tanh": ((), {"approximate": "tanh"}, (3, 4)),
    **{name: ((), {}, (3, 4)) for name in (*SMOOTH, "ReLU", "SELU", "Hardtanh", "Hardsigmoid")},
}
OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adagrad", {"lr": 0.1}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
]


def close(ours, theirs, rtol=1e-10):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=rtol, atol=1e-12)


def compare(ours, theirs, shape, rtol=1e-10):
    """Outputs and gradients of two models with the same weights."""
    import torch

    rng = np.random.default_rng(0)
    ours.load_state_dict(theirs.state_dict())
    x = rng.normal(size=shape)
    inputs = torch.tensor(x, requires_grad=True)
    y, outputs = ours(x), theirs(inputs)
    close(y, outputs)
    grad = rng.normal(size=y.shape)
    outputs.backward(torch.tensor(grad))
    close(ours.backward(grad), inputs.grad, rtol)
    for (name, parameter), (their_name, theirs_) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == their_name
        close(parameter.grad, theirs_.grad)
    same_state(ours, theirs)


def same_state(ours, theirs):
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    for name, array in ours.state_dict().items():
        close(array, state[name])


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    import torch

    arguments, options, shape = LAYERS[name]
    kind = name.partition(" ")[0]
    dtype = {"dtype": np.float64} if kind in ("Linear", "Conv2d") or "Norm" in kind else {}
    ours = getattr(nn, kind)(*arguments, **options, **dtype)
    rtol = 1e-7 if kind == "Hardsigmoid" else 1e-10  # PyTorch has 1/6 in float32 there
    compare(ours, getattr(torch.nn, kind)(*arguments, **options).double(), shape, rtol)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax(name):
    import torch

    compare(getattr(nn, name)(axis=0), getattr(torch.nn, name)(dim=0), (3, 4))


def a_network(library, **options):
    return library.Sequential(
        library.Conv2d(1, 4, 3, padding=1, **options),
        library.ReLU(),
        library.MaxPool2d(2),
        library.Flatten(),
        library.Sequential(library.Linear(36, 8, **options), library.Tanh()),
        library.Linear(8, 3, **options),
    )


def test_a_network_and_weights_both_ways():
    import torch

    ours, theirs = a_network(nn, dtype=np.float64), a_network(torch.nn).double()
    compare(ours, theirs, (5, 1, 6, 6))
    ours.initialize(random_state=0)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    x = np.random.default_rng(1).normal(size=(4, 1, 6, 6))
    close(ours.predict(x), theirs(torch.tensor(x)))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((3, 4), {}),
        ((3, 4, 3), {"nonlinearity": "relu"}),
        ((3, 4, 2, "relu"), {"bias": False}),
        ((3, 4, 2), {"batch_first": False}),
    ],
)
def test_recurrent_layers(arguments, options):
    import torch

    class Outputs(torch.nn.RNN):
        def forward(self, x):
            return super().forward(x)[0]

    ours = nn.RNN(*arguments, **options, dtype=np.float64)
    compare(ours, Outputs(*arguments, **{"batch_first": True, **options}).double(), (5, 6, 3))


def test_a_recurrent_network_learns_the_same():
    import torch

    class Last(torch.nn.RNN):
        def forward(self, x):
            return super().forward(x)[0][:, -1]

    ours = nn.Sequential(nn.RNN(2, 5, dtype=np.float64), nn.Last(), nn.Linear(5, 3, dtype=np.float64))
    rnn, linear = Last(2, 5, batch_first=True).double(), torch.nn.Linear(5, 3).double()
    parameters = [*rnn.named_parameters(prefix="0"), *linear.named_parameters(prefix="2")]
    ours.load_state_dict({name: one.detach() for name, one in parameters})
    optimizer = optim.Adam(ours.parameters(), lr=0.01)
    their_optimizer = torch.optim.Adam([one for _, one in parameters], lr=0.01)
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, target = rng.normal(size=(8, 7, 2)), rng.integers(0, 3, 8)
        value, grad = nn.CrossEntropyLoss().value_and_grad(ours(x), target)
        optimizer.zero_grad()
        ours.backward(grad, needs_grad_x=False)
        optimizer.step()
        their_optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(linear(rnn(torch.tensor(x))), torch.tensor(target))
        loss.backward()
        their_optimizer.step()
        close(value, loss, 1e-8)
    for (_, one), (_, theirs) in zip(ours.named_parameters(), parameters, strict=True):
        close(one.data, theirs, 1e-7)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_in_training_and_evaluation(momentum):
    import torch

    ours = nn.Sequential(
        nn.Conv2d(1, 3, 2, dtype=np.float64), nn.BatchNorm2d(3, momentum=momentum, dtype=np.float64)
    )
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 2), torch.nn.BatchNorm2d(3, momentum=momentum)
    ).double()
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(0)
    for n in (5, 2, 7):
        x = rng.normal(1, 2, (n, 1, 4, 5))
        close(ours(x), theirs(torch.tensor(x)))
        same_state(ours, theirs)
    ours.eval(), theirs.eval()
    close(ours(x), theirs(torch.tensor(x)))
    same_state(ours, theirs)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})


def test_global_pooling():
    import torch

    compare(
        nn.GlobalAvgPool2d(),
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        (2, 3, 4, 5),
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CrossEntropyLoss", {}),
        ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 1, "reduction": "sum"}),
        ("MSELoss", {}),
        ("BCELoss", {}),
        ("BCEWithLogitsLoss", {"reduction": "sum"}),
    ],
)
def test_losses(name, options):
    import torch

    rng = np.random.default_rng(0)
    output = rng.uniform(0.1, 0.9, (6, 3))
    target = rng.integers(0, 3, 6) if name.startswith("Cross") else rng.uniform(0, 1, (6, 3))
    value, grad = getattr(nn, name)(**options).value_and_grad(output, target)
    theirs = torch.tensor(output, requires_grad=True)
    loss = getattr(torch.nn, name)(**options)(theirs, torch.tensor(target))
    loss.backward()
    close(value, loss)
    close(grad, theirs.grad)


def test_half_squared_error():
    import torch

    rng = np.random.default_rng(0)
    output, target = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    value, grad = nn.HalfSquaredError().value_and_grad(output, target)
    theirs = torch.tensor(output, requires_grad=True)
    loss = torch.nn.functional.mse_loss(theirs, torch.tensor(target), reduction="sum") / 2 / len(output)
    loss.backward()
    close(value, loss)
    close(grad, theirs.grad)


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_optimizers(name, options):
    import torch

    ours, theirs = (
        nn.Sequential(nn.Linear(4, 3, dtype=np.float64)),
        torch.nn.Sequential(torch.nn.Linear(4, 3).double()),
    )
    ours.load_state_dict(theirs.state_dict())
    optimizer = getattr(optim, name)(ours.parameters(), **options)
    their_optimizer = getattr(torch.optim, name)(theirs.parameters(), **options)
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, target = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
        _, grad = nn.MSELoss().value_and_grad(ours(x), target)
        optimizer.zero_grad()
        ours.backward(grad)
        optimizer.step()
        their_optimizer.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(target)).backward()
        their_optimizer.step()
    for (_, parameter), their_parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        close(parameter.data, their_parameter)


@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        (optim.step_decay(0.1, every=3, factor=0.5), "StepLR", {"step_size": 3, "gamma": 0.5}),
        (optim.exponential_decay(0.1, factor=0.9), "ExponentialLR", {"gamma": 0.9}),
        (
            optim.cosine_decay(0.1, length=10, lowest=0.01),
            "CosineAnnealingLR",
            {"T_max": 10, "eta_min": 0.01},
        ),
    ],
)
def test_schedules(schedule, name, options):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    for epoch in range(10):
        assert schedule(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
