"""Whole networks of fastnn.nn against NumPy, scikit-learn, PyTorch, JAX and ONNX Runtime, whichever is installed.

    python benchmarks/networks.py [--threads 1] [--only MLP] [--rounds 15]
    python benchmarks/networks.py --memory

These rows are also part of `python -m fastnn bench --rivals`, as the family "networks". As in `rivals.py`, all take
turns in one process, and every answer is compared with that of the definitions in float64 before it is timed. The
answer of a training step is its loss and how each parameter has changed. All begin with the same weights and get the
same batch, as arrays of their own; inference goes from ndarray to ndarray.

With `--memory`, what the process grows by in a few training steps at most, each in a process of its own.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from rivals import (
    THREAD_VARIABLES,
    Call,
    Work,
    adam_in_jax,
    fails_when_called,
    fastnn,
    jax,
    library,
    main,
    momentum_in_jax,
    onnx,
    ort,
    present,
    random,
    session_of,
    sklearn,
    torch,
)

from fastnn import data, nn, optim

#: Of what changes most in a parameter: the changes are small beside the parameters that they are taken from.
TOLERANCE = 2e-3


@dataclass(frozen=True)
class Training:
    """A network, its optimizer (by the name and options that fastnn and PyTorch share) and the shape of a batch."""

    name: str
    layers: Callable[[], tuple[nn.Layer, ...]]
    shape: tuple[int, ...]
    optimizer: str
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> nn.Sequential:
        return nn.Sequential(*self.layers()).initialize(random_state=0)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        return random(*self.shape), np.random.default_rng(1).integers(0, 10, self.shape[0])


def lenet() -> tuple[nn.Layer, ...]:
    return (
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def vgg() -> tuple[nn.Layer, ...]:
    return (
        *(
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8192, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def mlp() -> tuple[nn.Layer, ...]:
    return nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)


SGD = {"lr": 1e-3, "momentum": 0.9}
#: With an eps as small as usual, rounding decides the direction of the first step where a gradient is almost 0.
ADAM = {"lr": 1e-3, "eps": 1e-3}
TRAININGS = (
    Training("MLP 784-512-256-10, SGD step of 64", mlp, (64, 784), "SGD", SGD),
    Training("LeNet-5 1x28x28, Adam step of 64", lenet, (64, 1, 28, 28), "Adam", ADAM),
    Training("VGG-like 3x32x32, SGD step of 32", vgg, (32, 3, 32, 32), "SGD", SGD),
)


# ----------------------------------------------------------------------------------------------------
# One training step, as each library does it: the loss, and the parameters after it


def in_fastnn(training: Training, model: nn.Sequential | None = None) -> Call:
    model, (x, labels) = model or training.model(), training.batch()
    parameters, loss = model.parameters(), nn.CrossEntropyLoss()
    optimizer = getattr(optim, training.optimizer)(parameters, **training.options)
    x = x.astype(model.dtype, copy=False)

    def call() -> Any:
        optimizer.zero_grad()
        value, grad = loss.value_and_grad(model.forward(x, training=True), labels)
        model.backward(grad, needs_grad_x=False)
        optimizer.step()
        return value, [one.data for one in parameters]

    return call


def by_definition(training: Training) -> Call:
    """In float64, with the NumPy definitions."""

    def call() -> Any:
        chosen = fastnn.report()[0].backend
        fastnn.set_backend("numpy")
        try:
            return in_fastnn(training, training.model().astype(np.float64))()
        finally:
            fastnn.set_backend(chosen)

    return call


def torch_model(model: nn.Sequential) -> Any:
    """The same network, its layers by the same names."""
    layers = [getattr(torch.nn, type(one).__name__)(**torch_options(one)) for one in model.layers]
    twin = torch.nn.Sequential(*layers)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    return twin


def torch_options(layer: nn.Layer) -> dict[str, Any]:
    return {name: value for name, value in layer.config.items() if name not in ("activation", "dtype")}


@fails_when_called
def in_torch(
    training: Training, *, channels_last: bool = False, compiled: bool = False, **options: Any
) -> Call | None:
    """Where `compiled`, the first call takes the compiler's time, and fails where there is none."""
    if torch is None or (channels_last and len(training.shape) != 4):
        return None
    model, (x, labels) = torch_model(training.model()), map(torch.from_numpy, training.batch())
    if channels_last:
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
        )
    parameters = list(model.parameters())
    optimizer = getattr(torch.optim, training.optimizer)(parameters, **training.options, **options)

    def forward() -> Any:
        return torch.nn.functional.cross_entropy(model(x), labels)

    if compiled:
        forward = torch.compile(forward)

    def call() -> Any:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss.detach(), [one.detach() for one in parameters]

    return call


def jax_forward(model: nn.Sequential) -> Callable[[dict[str, Any], Any], Any]:
    """The same network as a function of parameters by fastnn's names, and x."""

    def pooled(x: Any) -> Any:
        return jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def convolved(x: Any, weight: Any, padding: int) -> Any:
        return jax.lax.conv_general_dilated(x, weight, (1, 1), [(padding, padding)] * 2)

    def forward(parameters: dict[str, Any], x: Any) -> Any:
        for i, layer in enumerate(model.layers):
            weight, bias = (parameters.get(f"{i}.{name}") for name in ("weight", "bias"))
            if isinstance(layer, nn.Linear):
                x = x @ weight.T + bias
            elif isinstance(layer, nn.Conv2d):
                x = convolved(x, weight, layer.config["padding"]) + bias[:, None, None]
            elif isinstance(layer, nn.MaxPool2d):
                x = pooled(x)
            elif isinstance(layer, nn.Flatten):
                x = x.reshape(len(x), -1)
            else:
                x = getattr(jax.nn, type(layer).__name__.lower())(x)
        return x

    return forward


def jax_update(training: Training) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """From a parameter, its gradient and its state to the parameter and the state after the step."""
    return partial(momentum_in_jax if training.optimizer == "SGD" else adam_in_jax, **training.options)


def jax_step(training: Training, model: nn.Sequential) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The compiled step, the parameters and their state; the step overwrites them."""
    forward, update = jax_forward(model), jax_update(training)
    parameters = {name: jax.numpy.array(array) for name, array in model.state_dict().items()}
    zeros = {name: jax.numpy.zeros_like(array) for name, array in parameters.items()}

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        logarithms = jax.nn.log_softmax(forward(parameters, x))
        return -jax.numpy.take_along_axis(logarithms, labels[:, None], 1).mean()

    def step(parameters: Any, state: Any, x: Any, labels: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(parameters, x, labels)
        both = {name: update(parameters[name], grads[name], state[name]) for name in parameters}
        return (
            value,
            {name: new for name, (new, _) in both.items()},
            {name: one for name, (_, one) in both.items()},
        )

    state = {
        name: (zero,) if training.optimizer == "SGD" else (zero, zero + 0, jax.numpy.zeros(()))
        for name, zero in zeros.items()
    }
    return jax.jit(step, donate_argnums=(0, 1)), parameters, state


@fails_when_called
def in_jax(training: Training) -> Call | None:
    if jax is None:
        return None
    step, parameters, state = jax_step(training, training.model())
    x, labels = map(jax.numpy.asarray, training.batch())
    names = list(parameters)

    def call() -> Any:
        nonlocal parameters, state
        value, parameters, state = jax.block_until_ready(step(parameters, state, x, labels))
        return value, [parameters[name] for name in names]

    return call


def in_numpy(training: Training) -> Call | None:
    """By hand, for dense layers with relu between them: every result goes where the last one was."""
    if training.layers is not mlp:
        return None
    x, labels = training.batch()
    parameters = [one.data for one in training.model().parameters()]
    velocities, gradients = ([np.zeros_like(one) for one in parameters] for _ in range(2))
    weights, biases = parameters[::2], parameters[1::2]
    outputs = [np.empty((len(x), len(weight)), np.float32) for weight in weights]
    deltas = [np.empty_like(y) for y in outputs]
    rows, (lr, momentum) = np.arange(len(x)), training.options.values()

    def call() -> Any:
        y = x
        for weight, bias, out in zip(weights, biases, outputs, strict=True):
            y = np.matmul(y, weight.T, out=out)
            y += bias
            if out is not outputs[-1]:
                np.maximum(y, 0, out=y)
        delta = deltas[-1]
        np.subtract(y, y.max(axis=1, keepdims=True), out=delta)
        logits = delta[rows, labels]
        np.exp(delta, out=delta)
        sums = delta.sum(axis=1, keepdims=True)
        loss = np.mean(np.log(sums[:, 0]) - logits)
        delta /= sums
        delta[rows, labels] -= 1
        delta /= len(x)
        for i in reversed(range(len(weights))):
            below = outputs[i - 1] if i else x
            np.matmul(deltas[i].T, below, out=gradients[2 * i])
            np.sum(deltas[i], axis=0, out=gradients[2 * i + 1])
            if i:
                np.matmul(deltas[i], weights[i], out=deltas[i - 1])
                deltas[i - 1] *= below > 0
        for parameter, grad, velocity in zip(parameters, gradients, velocities, strict=True):
            velocity *= momentum
            velocity += grad
            np.multiply(velocity, lr, out=grad)
            parameter -= grad
        return loss, parameters

    return call


def step_rows() -> Iterator[Work]:
    """Training steps: forward, cross-entropy, backward and the optimizer's step."""
    for training in TRAININGS:
        contenders = present(
            fastnn=in_fastnn(training),
            numpy=in_numpy(training),
            torch=in_torch(training, fused=True),
            **{"torch foreach": in_torch(training, foreach=True)},
            **{"torch channels last": in_torch(training, fused=True, channels_last=True)},
            **{"torch compiled": in_torch(training, fused=True, compiled=True)},
            jax=in_jax(training),
        )
        changes = Changes(training.model(), by_definition(training))
        yield Work(
            training.name,
            flops(training.model(), training.shape),
            0,
            changes.exact,
            contenders,
            {name: partial(changes.of, call) for name, call in contenders.items()},
            TOLERANCE,
        )


class Changes:
    """Loss, and how parameters change in a call, with the largest change of each in the exact answer as 1."""

    def __init__(self, model: nn.Sequential, definition: Call) -> None:
        self.before = [one.data.astype(np.float64) for one in model.parameters()]
        self.definition = definition

    def exact(self) -> list[np.ndarray]:
        return self._scaled(self._unscaled)

    def of(self, call: Call) -> list[np.ndarray]:
        return self._scaled(self._of(call))

    @cached_property
    def _unscaled(self) -> list[np.ndarray]:
        return self._of(self.definition)

    def _of(self, call: Call) -> list[np.ndarray]:
        loss, parameters = call()
        pairs = zip(parameters, self.before, strict=True)
        return [np.asarray(loss), *(np.asarray(after, np.float64) - before for after, before in pairs)]

    def _scaled(self, answer: list[np.ndarray]) -> list[np.ndarray]:
        loss, *changes = answer
        largest = (np.abs(exact).max() for exact in self._unscaled[1:])
        return [loss, *(change / scale for change, scale in zip(changes, largest, strict=True))]


def flops(model: nn.Sequential, shape: tuple[int, ...]) -> float:
    """Of forward and backward: each product three times, but for the gradient of x of the first layer."""
    total, times = 0.0, 2
    for layer in model.layers:
        outputs = layer.output_shape(shape)
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            total += 2.0 * times * math.prod(outputs) * math.prod(layer.weight.shape[1:])
            times = 3
        shape = outputs
    return total


# ----------------------------------------------------------------------------------------------------
# Inference of one sample


def inference_rows() -> Iterator[Work]:
    """One sample through a dense network, from ndarray to ndarray."""
    layers = nn.Linear(784, 128), nn.Sigmoid(), nn.Linear(128, 10), nn.Sigmoid()
    model, x = nn.Sequential(*layers).initialize(random_state=0), random(1, 784)
    yield Work(
        "MLP 784-128-10 sigmoid, one sample",
        flops(model, x.shape) / 3,
        sum(flat.data.nbytes for flat in model.parameters().flats),
        partial(model.astype(np.float64).predict, x),
        present(
            fastnn=partial(model.plan(1), x),
            numpy=inference_in_numpy(model, x),
            torch=inference_in_torch(model, x),
            jax=inference_in_jax(model, x),
            onnxruntime=inference_in_onnx(model, x),
        ),
    )


def inference_in_numpy(model: nn.Sequential, x: np.ndarray) -> Call:
    """By hand, the weights transposed beforehand."""
    weight1, bias1, weight2, bias2 = (one.data for one in model.parameters())
    weight1, weight2 = np.ascontiguousarray(weight1.T), np.ascontiguousarray(weight2.T)

    def sigmoid(z: np.ndarray) -> np.ndarray:
        np.negative(z, out=z)
        np.exp(z, out=z)
        z += 1
        return np.reciprocal(z, out=z)

    def call() -> np.ndarray:
        z = x @ weight1
        z += bias1
        z = sigmoid(z) @ weight2
        z += bias2
        return sigmoid(z)

    return call


@fails_when_called
def inference_in_torch(model: nn.Sequential, x: np.ndarray) -> Call | None:
    if torch is None:
        return None
    twin = torch_model(model).eval()

    def call() -> np.ndarray:
        with torch.inference_mode():
            return twin(torch.from_numpy(x)).numpy()

    return call


@fails_when_called
def inference_in_jax(model: nn.Sequential, x: np.ndarray) -> Call | None:
    if jax is None:
        return None
    forward = jax.jit(jax_forward(model))
    parameters = {name: jax.numpy.asarray(array) for name, array in model.state_dict().items()}
    return lambda: np.asarray(forward(parameters, x))


@fails_when_called
def inference_in_onnx(model: nn.Sequential, x: np.ndarray) -> Call | None:
    if onnx is None or ort is None:
        return None
    make = onnx.helper.make_node
    nodes = [
        make("Gemm", ["x", "0.weight", "0.bias"], ["z"], transB=1),
        make("Sigmoid", ["z"], ["a"]),
        make("Gemm", ["a", "2.weight", "2.bias"], ["b"], transB=1),
        make("Sigmoid", ["b"], ["y"]),
    ]
    session = session_of(nodes, {"x": x}, model.state_dict())
    return lambda: session.run(None, {"x": x})[0]


# ----------------------------------------------------------------------------------------------------
# An epoch

#: So small that it does not matter where it is added, which scikit-learn does elsewhere.
EPS = 1e-12


def epoch_rows() -> Iterator[Work]:
    """Digits as scikit-learn's classifier trains on them: Adam, batches of 200 in their order, no penalty."""
    if sklearn is None:
        return
    x, labels = library("sklearn.datasets").load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    training = Training(
        "",
        lambda: (nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10)),
        x.shape,
        "Adam",
        {"lr": 1e-3, "eps": EPS},
    )
    contenders = present(
        fastnn=epoch_in_fastnn(training, x, labels),
        **{"scikit-learn": epoch_in_sklearn(training.model(), x, labels)},
        torch=epoch_in_torch(training, x, labels),
        jax=epoch_in_jax(training, x, labels),
    )
    changes = Changes(training.model(), epoch_in_fastnn(training, x.astype(np.float64), labels))
    yield Work(
        "digits, an epoch of MLPClassifier(100)",
        flops(training.model(), x.shape),
        0,
        changes.exact,
        contenders,
        {name: partial(changes.of, call) for name, call in contenders.items()},
        TOLERANCE,
    )


def epoch_in_fastnn(training: Training, x: np.ndarray, labels: np.ndarray) -> Call:
    model = training.model().astype(x.dtype)
    parameters, loss = model.parameters(), nn.CrossEntropyLoss()
    optimizer = optim.Adam(parameters, **training.options)

    def call() -> Any:
        total = 0.0
        for batch, target in data.batches(x, labels, batch_size=200):
            optimizer.zero_grad()
            value, grad = loss.value_and_grad(model.forward(batch, training=True), target)
            model.backward(grad, needs_grad_x=False)
            optimizer.step()
            total += float(value) * len(batch)
        return total / len(x), [one.data for one in parameters]

    return call


@fails_when_called
def epoch_in_sklearn(model: nn.Sequential, x: np.ndarray, labels: np.ndarray) -> Call:
    network = library("sklearn.neural_network").MLPClassifier(100, alpha=0, epsilon=EPS, shuffle=False)
    network.partial_fit(x, labels, classes=np.arange(10))
    state = model.state_dict()
    for i, name in enumerate(("0", "2")):
        network.coefs_[i][...] = state[f"{name}.weight"].T
        network.intercepts_[i][...] = state[f"{name}.bias"]
    del network._optimizer  # begins anew

    def call() -> Any:
        network.partial_fit(x, labels)
        pairs = zip(network.coefs_, network.intercepts_, strict=True)
        return network.loss_, [array for weight, bias in pairs for array in (weight.T, bias)]

    return call


@fails_when_called
def epoch_in_torch(training: Training, x: np.ndarray, labels: np.ndarray) -> Call | None:
    if torch is None:
        return None
    model = torch_model(training.model())
    inputs, targets = torch.from_numpy(x).split(200), torch.from_numpy(labels).split(200)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, **training.options, fused=True)

    def call() -> Any:
        total = 0.0
        for batch, target in zip(inputs, targets, strict=True):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(batch), target)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        return total / len(x), [one.detach() for one in parameters]

    return call


@fails_when_called
def epoch_in_jax(training: Training, x: np.ndarray, labels: np.ndarray) -> Call | None:
    if jax is None:
        return None
    step, parameters, state = jax_step(training, training.model())
    names = list(parameters)
    batches = [
        (jax.numpy.asarray(x[i : i + 200]), jax.numpy.asarray(labels[i : i + 200]))
        for i in range(0, len(x), 200)
    ]

    def call() -> Any:
        nonlocal parameters, state
        total = 0.0
        for batch, target in batches:
            value, parameters, state = step(parameters, state, batch, target)
            total += float(value) * len(batch)
        jax.block_until_ready(parameters)
        return total / len(x), [parameters[name] for name in names]

    return call


FAMILIES = {"inference": inference_rows, "steps": step_rows, "epoch": epoch_rows}


def rows() -> Iterator[Work]:
    """All rows, which are one family of `python -m fastnn bench --rivals`."""
    for make in FAMILIES.values():
        yield from make()


# ----------------------------------------------------------------------------------------------------
# Memory


MAKERS: dict[str, Callable[[Training], Call | None]] = {
    "fastnn": in_fastnn,
    "torch": partial(in_torch, fused=True),
    "torch channels last": partial(in_torch, fused=True, channels_last=True),
    "jax": in_jax,
}


def kibibytes(field: str) -> int:
    """A line of what Linux says of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:"))


def growth(training: Training, contender: str) -> str:
    """By how much the process has grown at most after five steps, in MiB: all that training takes but the libraries."""
    before = kibibytes("VmRSS")
    call = MAKERS[contender](training)
    if call is None:
        return "-"
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak begins anew
    for _ in range(5):
        call()
    return f"{(kibibytes('VmHWM') - before) / 2**10:.1f}"


def memory() -> None:
    """Print `growth` of each contender for each network, from processes of their own."""
    print("| Work |", " | ".join(f"{name}, MiB" for name in MAKERS), "|")
    print("| :-- |", " | ".join(["--:"] * len(MAKERS)), "|")
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    for i, training in enumerate(TRAININGS):
        commands = ([sys.executable, __file__, "--growth", str(i), name] for name in MAKERS)
        run = partial(subprocess.check_output, env=environment, text=True)
        print(f"| {training.name} |", " | ".join(run(command).strip() for command in commands), "|")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--growth"]:
        print(growth(TRAININGS[int(sys.argv[2])], sys.argv[3]))
    elif sys.argv[1:] == ["--memory"]:
        memory()
    else:
        sys.exit(main(__doc__, FAMILIES))
