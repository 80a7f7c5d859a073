"""fastnn against NumPy, SciPy, scikit-learn, PyTorch, JAX and ONNX Runtime, whichever is installed.

    python benchmarks/rivals.py [--threads 1] [--only conv,relu] [--rounds 15]

These rows are also part of `python -m fastnn bench --rivals`, whose stopwatch this is. All take turns in one process,
round by round, and a row's figure is the median of its rounds. Every answer is compared with NumPy's in float64 before
it is timed. The rivals get their own arrays beforehand, so that nobody is charged for a conversion, and write where
they can be told to. "Limit" is the time that the row would take at the rate of a large matrix product and at the
speed of copies within the caches that hold its arrays, both measured in this run.

Idle threads of some libraries spin for a while; with more than one thread the rounds therefore pause between two
contenders.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, wraps
from typing import Any

import numpy as np

from fastnn._contract import KERNELS
from fastnn.bench.command import THREAD_VARIABLES
from fastnn.bench.limits import Limits, measure
from fastnn.bench.results import duration
from fastnn.bench.rows import TOLERANCE, Call, Work, failure_of, verify
from fastnn.bench.timing import Patience, interleaved
from fastnn.bench.worker import PAUSE


def library(name: str) -> Any:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


fastnn = importlib.import_module("fastnn")
torch, jax, onnx, ort = map(library, ("torch", "jax", "onnx", "onnxruntime"))
scipy, special, sklearn = map(library, ("scipy", "scipy.special", "sklearn"))
#: The parts that scikit-learn's own networks are made of, by its names.
layers, math_of_sklearn = library("sklearn.neural_network._base"), library("sklearn.utils.extmath")
definition = fastnn.backend("numpy")


def present(**contenders: Call | None) -> dict[str, Call]:
    """The contenders that exist."""
    return {name: call for name, call in contenders.items() if call is not None}


def fails_when_called(make: Callable[..., Call | None]) -> Callable[..., Call | None]:
    """Where a contender cannot be made, one that raises the error when it is called: it is named, and others go on."""

    @wraps(make)
    def made(*arguments: Any, **options: Any) -> Call | None:
        try:
            return make(*arguments, **options)
        except Exception as problem:
            return partial(_raise, problem)

    return made


def _raise(problem: Exception) -> None:
    raise problem


@fails_when_called
def jitted(function: Callable[..., Any], *arrays: np.ndarray) -> Call | None:
    """The call of `function` on JAX's arrays, compiled and waited for."""
    if jax is None:
        return None
    compiled, arguments = jax.jit(function), [jax.numpy.asarray(array) for array in arrays]
    return lambda: jax.block_until_ready(compiled(*arguments))


@fails_when_called
def in_torch(function: Callable[..., Any], *arrays: np.ndarray, channels_last: bool = False) -> Call | None:
    """The call of `function` on PyTorch's tensors, images with channels last where asked."""
    if torch is None:
        return None
    tensors = [torch.from_numpy(array) for array in arrays]
    if channels_last:
        last = torch.channels_last
        tensors = [one.contiguous(memory_format=last) if one.ndim == 4 else one for one in tensors]

    def call() -> Any:
        with torch.no_grad():
            return function(*tensors)

    return call


@fails_when_called
def in_onnx(
    operator: str,
    arrays: Mapping[str, np.ndarray],
    constants: tuple[str, ...] = (),
    outputs: tuple[str, ...] = ("y",),
    **attributes: Any,
) -> Call | None:
    """The call of one operator by ONNX Runtime; constants are weights, which it may rearrange beforehand."""
    if onnx is None or ort is None:
        return None
    node = onnx.helper.make_node(operator, list(arrays), outputs, **attributes)
    feed = {name: array for name, array in arrays.items() if name not in constants}
    session = session_of([node], feed, {name: arrays[name] for name in constants}, outputs)
    return (lambda: session.run(None, feed)) if len(outputs) > 1 else lambda: session.run(None, feed)[0]


def session_of(
    nodes: list[Any],
    feed: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    outputs: tuple[str, ...] = ("y",),
) -> Any:
    """A session of ONNX Runtime for a graph from the arrays of `feed`, all of one dtype, to the outputs."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(next(iter(feed.values())).dtype)
    inputs = [helper.make_tensor_value_info(name, kind, array.shape) for name, array in feed.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]  # their dtypes are inferred
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "row", inputs, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["FASTNN_NUM_THREADS"])
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@fails_when_called
def in_sklearn(activation: str, x: np.ndarray, y: np.ndarray) -> Call | None:
    """The call of an activation of scikit-learn's networks, which work in place: on a copy in `y`."""
    if layers is None:
        return None
    in_place = layers.ACTIVATIONS[activation]

    def call() -> np.ndarray:
        np.copyto(y, x)
        in_place(y)
        return y

    return call


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def exactly(definition: Callable[..., Any], *arguments: Any, **options: Any) -> Call:
    """The call of a definition with float64 for float32."""
    wide = [
        one.astype(np.float64) if isinstance(one, np.ndarray) and one.dtype == np.float32 else one
        for one in arguments
    ]
    return partial(definition, *wide, **options)


def nbytes(*arrays: np.ndarray) -> int:
    return sum(array.nbytes for array in arrays)


# ----------------------------------------------------------------------------------------------------
# Rows


def linear_rows() -> Iterator[Work]:
    """A dense layer with bias and relu, with its weight packed (as ONNX Runtime's always is), and its backward."""
    packed = ((32, 784, 128), (64, 784, 512))
    sizes = (
        (1, 128, 10),
        (1, 784, 128),
        (32, 784, 128),
        (64, 784, 512),
        (256, 1024, 1024),
        (1024, 4096, 1024),
    )
    for n, inputs, outputs in sizes:
        yield from dense_rows(n, inputs, outputs, "float32", packed=(n, inputs, outputs) in packed)
    for n, inputs, outputs in sizes[1:]:
        yield from dense_rows(n, inputs, outputs, "float64")


def dense_rows(n: int, inputs: int, outputs: int, dtype: str, *, packed: bool = False) -> Iterator[Work]:
    x, weight, bias, g = (
        random(*shape, seed=seed).astype(dtype, copy=False)
        for seed, shape in enumerate(((n, inputs), (outputs, inputs), (outputs,), (n, outputs)))
    )
    y = np.empty_like(g)
    weight /= math.sqrt(inputs)
    single = dtype == "float32"  # JAX computes with nothing else, unless told to for the whole process
    size = f"{n}x{inputs}->{outputs}" + ("" if single else f" {dtype}")
    flops, tolerance = 2.0 * n * inputs * outputs, TOLERANCE if single else 1e-12
    exact = exactly(definition.linear, x, weight, bias, activation="relu")
    in_onnxruntime = in_onnx_linear(x, weight, bias)
    yield Work(
        f"linear + relu {size}",
        flops,
        nbytes(x, weight, bias, y),
        exact,
        present(
            fastnn=partial(fastnn.linear, x, weight, bias, activation="relu", out=y),
            numpy=partial(lambda x, w, b: np.maximum(x @ w + b, 0), x, weight.T, bias),
            **{"scikit-learn": linear_in_sklearn(x, weight, bias)},
            torch=in_torch(lambda x, w, b: torch.relu(torch.nn.functional.linear(x, w, b)), x, weight, bias),
            jax=jitted(lambda x, w, b: jax.nn.relu(x @ w.T + b), x, weight, bias) if single else None,
            onnxruntime=in_onnxruntime,
        ),
        tolerance=tolerance,
        dtype=dtype,
    )
    if packed:
        yield Work(
            f"linear + relu {size}, weight packed",
            flops,
            nbytes(x, weight, bias, y),
            exact,
            present(
                fastnn=partial(fastnn.linear, x, fastnn.pack(weight), bias, activation="relu", out=y),
                onnxruntime=in_onnxruntime,
            ),
        )
    outs = np.empty_like(x), np.empty_like(weight), np.empty_like(bias)
    yield Work(
        f"linear backward {size}",
        2 * flops,
        nbytes(x, weight, g, x, weight),
        exactly(definition.linear_backward, g, x, weight),
        present(
            fastnn=partial(fastnn.linear_backward, g, x, weight, out=outs),
            numpy=partial(linear_backward_in_numpy, g, x, weight, *map(np.empty_like, outs)),
            torch=in_torch(linear_backward_in_torch, g, x, weight, *map(np.empty_like, outs)),
            jax=jitted(lambda g, x, w: (g @ w, g.T @ x, g.sum(0)), g, x, weight) if single else None,
        ),
        tolerance=tolerance,
        dtype=dtype,
    )


def linear_backward_in_numpy(g: Any, x: Any, w: Any, grad_x: Any, grad_weight: Any, grad_bias: Any) -> Any:
    return np.matmul(g, w, out=grad_x), np.matmul(g.T, x, out=grad_weight), g.sum(axis=0, out=grad_bias)


def linear_backward_in_torch(g: Any, x: Any, w: Any, grad_x: Any, grad_weight: Any, grad_bias: Any) -> Any:
    return (
        torch.mm(g, w, out=grad_x),
        torch.mm(g.T, x, out=grad_weight),
        torch.sum(g, dim=0, out=grad_bias),
    )


@fails_when_called
def linear_in_sklearn(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Call | None:
    """A hidden layer, as scikit-learn's networks predict with it."""
    if layers is None:
        return None
    coefficients, relu = np.ascontiguousarray(weight.T), layers.ACTIVATIONS["relu"]

    def call() -> np.ndarray:
        y = math_of_sklearn.safe_sparse_dot(x, coefficients)
        y += bias
        relu(y)
        return y

    return call


def in_onnx_linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Call | None:
    """Gemm, whose result relu overwrites; ONNX has no operator for both."""
    call = in_onnx("Gemm", {"x": x, "weight": weight, "bias": bias}, ("weight", "bias"), transB=1)

    def with_relu() -> np.ndarray:
        y = call()
        return np.maximum(y, 0, out=y)

    return with_relu if call else None


#: Element-wise functions that more than one library has, with their options, which their rows are called by too.
FUNCTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    *((name, {}) for name in ("relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "softplus", "elu")),
    ("gelu", {"approximate": "tanh"}),
)
EXPONENTS = 3, 5, 7


def activation_rows() -> Iterator[Work]:
    """Element-wise functions, into an array that exists where the library has a way to say so, and their backwards."""
    functional = torch.nn.functional if torch else None
    in_numpy: dict[str, Callable[..., Any]] = {
        "relu": lambda x, out: np.maximum(x, 0, out=out),
        "leaky_relu": lambda x, out: np.maximum(x, np.float32(0.01) * x, out=out),
        "tanh": np.tanh,
        "softplus": lambda x, out: np.logaddexp(0, x, out=out),
    }
    of_sklearn = {"relu": "relu", "sigmoid": "logistic", "tanh": "tanh"}
    operators = {"leaky_relu": "LeakyRelu"}
    operators |= {name: name.capitalize() for name in ("relu", "sigmoid", "tanh", "gelu", "softplus", "elu")}
    for name, options in FUNCTIONS:
        title = " ".join((name, *options.values()))
        reference = partial(getattr(definition, name), **options)
        for exponent in EXPONENTS:
            x = random(10**exponent)
            y = np.empty_like(x)
            yield Work(
                f"{title} 1e{exponent}",
                0,
                nbytes(x, y),
                exactly(reference, x),
                present(
                    fastnn=partial(getattr(fastnn, name), x, out=y, **options),
                    numpy=partial(in_numpy.get(name, reference), x, out=y),
                    scipy=partial(special.expit, x, out=y) if special and name == "sigmoid" else None,
                    **{"scikit-learn": in_sklearn(of_sklearn[name], x, y) if name in of_sklearn else None},
                    torch=in_torch(partial(getattr(functional, name), **options), x) if torch else None,
                    jax=jitted(function_of_jax(name, options), x) if jax else None,
                    onnxruntime=in_onnx(operators[name], {"x": x}, **options) if name in operators else None,
                ),
            )
    for name, options in FUNCTIONS:
        for exponent in EXPONENTS:
            title = " ".join((name, *options.values(), f"backward 1e{exponent}"))
            yield backward_row(title, name, options, random(10**exponent))


def function_of_jax(name: str, options: Mapping[str, str]) -> Callable[..., Any]:
    """JAX's gelu is approximated unless told not to be."""
    function = getattr(jax.nn, name)
    return partial(function, approximate=bool(options)) if name == "gelu" else function


def backward_row(title: str, name: str, options: Mapping[str, str], x: np.ndarray) -> Work:
    """Backwards from what fastnn and PyTorch keep, the output or the input; JAX keeps the input."""
    x[x == 0] = 1  # where libraries differ in what they take for the derivative
    g, out = random(x.size, seed=1), np.empty_like(x)
    from_output = "y" in KERNELS[f"{name}_backward"].signature.parameters
    kept = getattr(fastnn, name)(x) if from_output else x
    of_torch: dict[str, tuple[str, tuple[Any, ...]]] = {
        "relu": ("threshold", (0,)),
        "leaky_relu": ("leaky_relu", (0.01, False)),
        "softplus": ("softplus", (1, 20)),
    }
    operator, numbers = of_torch.get(name, (name, ()))

    def in_aten(g: Any, kept: Any) -> Any:
        if name == "elu":
            return torch.ops.aten.elu_backward(g, 1, 1, 1, False, kept)
        return getattr(torch.ops.aten, f"{operator}_backward")(g, kept, *numbers, **options)

    def pulled_back(g: Any, x: Any) -> Any:
        return jax.vjp(function_of_jax(name, options), x)[1](g)[0]

    reference = partial(getattr(definition, f"{name}_backward"), **options)
    return Work(
        title,
        0,
        nbytes(g, kept, out),
        exactly(reference, g, kept),
        present(
            fastnn=partial(getattr(fastnn, f"{name}_backward"), g, kept, out=out, **options),
            numpy=partial(reference, g, kept, out=out),
            torch=in_torch(in_aten, g, kept),
            jax=jitted(pulled_back, g, x) if jax else None,
        ),
    )


def softmax_rows() -> Iterator[Work]:
    """Softmax over rows, and cross-entropy with its gradient."""
    for name in ("softmax", "log_softmax"):
        for rows, columns in ((32, 10), (128, 1000), (8192, 1000)):
            x = random(rows, columns)
            y = np.empty_like(x)
            reference = getattr(definition, name)
            yield Work(
                f"{name} {rows}x{columns}",
                0,
                nbytes(x, y),
                exactly(reference, x),
                present(
                    fastnn=partial(getattr(fastnn, name), x, out=y),
                    numpy=partial(reference, x),
                    scipy=partial(getattr(special, name), x, axis=-1) if special else None,
                    **{"scikit-learn": in_sklearn(name, x, y) if name == "softmax" else None},
                    torch=in_torch(partial(getattr(torch, name), dim=-1), x) if torch else None,
                    jax=jitted(getattr(jax.nn, name), x) if jax else None,
                    onnxruntime=in_onnx("Softmax" if name == "softmax" else "LogSoftmax", {"x": x}),
                ),
            )
    for rows, classes in ((128, 10), (256, 1000)):
        x = random(rows, classes)
        labels = np.random.default_rng(1).integers(0, classes, rows)
        grad = np.empty_like(x)
        yield Work(
            f"cross_entropy_with_grad {rows}x{classes}",
            0,
            nbytes(x, grad),
            exactly(definition.cross_entropy_with_grad, x, labels),
            present(
                fastnn=partial(fastnn.cross_entropy_with_grad, x, labels, out=grad),
                numpy=partial(definition.cross_entropy_with_grad, x, labels),
                **{"scikit-learn": cross_entropy_in_sklearn(x, labels)},
                torch=cross_entropy_in_torch(x, labels),
                jax=cross_entropy_in_jax(x, labels),
            ),
        )


@fails_when_called
def cross_entropy_in_sklearn(x: np.ndarray, labels: np.ndarray) -> Call | None:
    """The output layer of scikit-learn's classifier in training."""
    if layers is None:
        return None
    target = np.eye(x.shape[1], dtype=x.dtype)[labels]
    softmax = in_sklearn("softmax", x, np.empty_like(x))

    def call() -> Any:
        y = softmax()
        loss = layers.LOSS_FUNCTIONS["log_loss"](target, y)
        return loss, (y - target) / len(y)

    return call


@fails_when_called
def cross_entropy_in_torch(x: np.ndarray, labels: np.ndarray) -> Call | None:
    if torch is None:
        return None
    logits, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(labels)

    def call() -> Any:
        loss = torch.nn.functional.cross_entropy(logits, target)
        return loss.detach(), *torch.autograd.grad(loss, logits)

    return call


@fails_when_called
def cross_entropy_in_jax(x: np.ndarray, labels: np.ndarray) -> Call | None:
    if jax is None:
        return None

    def loss(x: Any, target: Any) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(x), target[:, None], 1).mean()

    return jitted(jax.value_and_grad(loss), x, labels)


#: x[N, C, H, H], kernels, taps and options of the convolutions.
CONVOLUTIONS = (
    (1, 1, 28, 6, 5, {}),
    (64, 1, 28, 6, 5, {}),
    (64, 6, 14, 16, 5, {}),
    (32, 3, 32, 32, 3, {"padding": 1}),
    (32, 64, 16, 64, 3, {"padding": 1}),
    (8, 64, 56, 64, 3, {"padding": 1}),
    (8, 128, 28, 128, 3, {"padding": 1}),
    (8, 256, 14, 256, 3, {"padding": 1}),
    (8, 64, 56, 256, 1, {}),
    (8, 3, 224, 64, 7, {"stride": 2, "padding": 3}),
    (8, 64, 56, 64, 3, {"padding": 1, "groups": 64}),
    (8, 128, 56, 128, 3, {"stride": 2, "padding": 1}),
    (8, 512, 7, 512, 3, {"padding": 1}),
    (4, 3, 224, 768, 16, {"stride": 16}),
    (8, 64, 56, 64, 3, {"stride": 2, "padding": 1, "groups": 64}),
    (8, 96, 28, 96, 7, {"padding": 3, "groups": 96}),
)


def conv_rows() -> Iterator[Work]:
    """Convolutions and the three gradients of each."""
    for n, c, h, k, r, options in CONVOLUTIONS:
        groups = options.get("groups", 1)
        x, weight, bias = random(n, c, h, h), random(k, c // groups, r, r, seed=1), random(k, seed=2)
        weight /= math.sqrt(weight[0].size)
        y = fastnn.conv2d(x, weight, bias, **options)
        g = random(*y.shape, seed=3)
        name = f"{n}x{c}x{h}x{h} k{k} {r}x{r}" + "".join(f" {key} {value}" for key, value in options.items())
        flops = 2.0 * y.size * weight[0].size
        yield Work(
            f"conv2d {name}",
            flops,
            nbytes(x, weight, y),
            exactly(definition.conv2d, x, weight, bias, **options),
            present(
                fastnn=partial(fastnn.conv2d, x, weight, bias, out=y, **options),
                numpy=partial(definition.conv2d, x, weight, bias, **options),
                torch=conv_in_torch(options, False, x, weight, bias),
                **{"torch channels last": conv_in_torch(options, True, x, weight, bias)},
                jax=conv_in_jax(options, x, weight, bias),
                onnxruntime=in_onnx(
                    "Conv",
                    {"x": x, "weight": weight, "bias": bias},
                    ("weight", "bias"),
                    pads=[options.get("padding", 0)] * 4,
                    strides=[options.get("stride", 1)] * 2,
                    group=groups,
                ),
            ),
        )
        yield Work(
            f"conv2d backward {name}",
            2 * flops,
            nbytes(x, weight, g, x, weight),
            exactly(definition.conv2d_backward, g, x, weight, **options),
            present(
                fastnn=partial(fastnn.conv2d_backward, g, x, weight, **options),
                numpy=partial(definition.conv2d_backward, g, x, weight, **options),
                torch=conv_backward_in_torch(options, False, g, x, weight),
                **{"torch channels last": conv_backward_in_torch(options, True, g, x, weight)},
                jax=conv_backward_in_jax(options, g, x, weight, bias),
            ),
        )


def conv_in_torch(options: dict[str, int], channels_last: bool, *arrays: np.ndarray) -> Call | None:
    return in_torch(
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, **options), *arrays, channels_last=channels_last
    )


def conv_backward_in_torch(options: dict[str, int], channels_last: bool, *arrays: np.ndarray) -> Call | None:
    stride, padding = [options.get("stride", 1)] * 2, [options.get("padding", 0)] * 2
    groups, kernels = options.get("groups", 1), arrays[2].shape[0]

    def call(g: Any, x: Any, w: Any) -> Any:
        return torch.ops.aten.convolution_backward(
            g, x, w, [kernels], stride, padding, [1, 1], False, [0, 0], groups, [True] * 3
        )

    return in_torch(call, *arrays, channels_last=channels_last)


def convolution(options: dict[str, int]) -> Callable[..., Any]:
    """JAX's, with bias."""
    stride, padding = [options.get("stride", 1)] * 2, [(options.get("padding", 0),) * 2] * 2
    groups = options.get("groups", 1)
    return lambda x, w, b: (
        jax.lax.conv_general_dilated(x, w, stride, padding, feature_group_count=groups) + b[:, None, None]
    )


def conv_in_jax(options: dict[str, int], *arrays: np.ndarray) -> Call | None:
    return jitted(convolution(options), *arrays)


def conv_backward_in_jax(options: dict[str, int], *arrays: np.ndarray) -> Call | None:
    return jitted(lambda g, x, w, b: jax.vjp(convolution(options), x, w, b)[1](g), *arrays)


def pooling_rows() -> Iterator[Work]:
    """Max pooling with the positions of the maxima, and its backward."""
    for n, c, h, size, stride, padding in (
        (64, 6, 28, 2, 2, 0),
        (32, 64, 32, 2, 2, 0),
        (8, 64, 112, 2, 2, 0),
        (64, 6, 28, 3, 2, 1),
        (32, 64, 32, 3, 2, 1),
        (8, 64, 112, 3, 2, 1),
    ):
        x = random(n, c, h, h)
        options = {"stride": stride, "padding": padding}
        y, indices = fastnn.max_pool2d(x, size, return_indices=True, **options)
        g = random(*y.shape, seed=1)
        name = f"{n}x{c}x{h}x{h} {size}x{size} stride {stride} padding {padding}"
        both = {"kernel_size": size, "return_indices": True, **options}
        window = [size] * 2, [stride] * 2, [padding] * 2
        contenders = present(
            fastnn=partial(fastnn.max_pool2d, x, **both),
            numpy=partial(definition.max_pool2d, x, **both),
            torch=pool_in_torch(window, False, x),
            **{"torch channels last": pool_in_torch(window, True, x)},
            onnxruntime=pool_in_onnx(window, x),
        )
        yield Work(
            f"max_pool2d with indices {name}",
            0,
            nbytes(x, y, indices),
            exactly(definition.max_pool2d, x, **both),
            contenders,
            contenders | present(onnxruntime=within_planes(contenders.get("onnxruntime"), x)),
        )
        yield Work(
            f"max_pool2d backward {name}",
            0,
            nbytes(x, y, indices),
            exactly(definition.max_pool2d_backward, g, indices, x.shape),
            present(
                fastnn=partial(fastnn.max_pool2d_backward, g, indices, x.shape),
                numpy=partial(definition.max_pool2d_backward, g, indices, x.shape),
                torch=pool_backward_in_torch(window, False, g, x, indices),
                **{"torch channels last": pool_backward_in_torch(window, True, g, x, indices)},
            ),
        )


def pool_in_torch(window: tuple[list[int], ...], channels_last: bool, x: np.ndarray) -> Call | None:
    return in_torch(
        lambda x: torch.ops.aten.max_pool2d_with_indices(x, *window), x, channels_last=channels_last
    )


def pool_in_onnx(window: tuple[list[int], ...], x: np.ndarray) -> Call | None:
    size, stride, padding = window
    options = {"kernel_shape": size, "strides": stride, "pads": padding * 2}
    return in_onnx("MaxPool", {"x": x}, outputs=("y", "indices"), **options)


def within_planes(call: Call | None, x: np.ndarray) -> Call | None:
    """The answer with indices that count from the start of each plane; ONNX's count from the start of `x`."""
    if call is None:
        return None

    def answer() -> tuple[np.ndarray, np.ndarray]:
        y, indices = call()
        n, c, *plane = x.shape
        return y, indices - np.arange(n * c).reshape(n, c, 1, 1) * math.prod(plane)

    return answer


def pool_backward_in_torch(
    window: tuple[list[int], ...], channels_last: bool, *arrays: np.ndarray
) -> Call | None:
    def call(g: Any, x: Any, indices: Any) -> Any:
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return backward(g, x, *window, [1, 1], False, indices)

    return in_torch(call, *arrays, channels_last=channels_last)


def optimizer_rows() -> Iterator[Work]:
    """Steps in place, each contender's on arrays of its own; the first is compared."""
    for exponent in (4, 7):
        size = 10**exponent
        parameter, gradient, zeros = random(size), random(size), np.zeros(size, np.float32)
        for name, states, options in (
            ("momentum_step", 1, {"lr": 0.01}),
            ("adam_step", 2, {"lr": 0.01, "step": 1}),
        ):
            arrays = parameter, gradient, *[zeros] * states
            yield Work(
                f"{name} 1e{exponent}",
                0,
                nbytes(*arrays, parameter, *[zeros] * states),
                lambda name=name, arrays=arrays, options=options: stepping(
                    getattr(definition, name), map(np.float64, arrays), options
                )(),
                present(
                    fastnn=stepping(getattr(fastnn, name), map(np.copy, arrays), options),
                    numpy=stepping(getattr(definition, name), map(np.copy, arrays), options),
                    torch=step_in_torch(name, arrays),
                    jax=step_in_jax(name, arrays),
                ),
            )


def stepping(step: Callable[..., None], arrays: Iterable[np.ndarray], options: dict[str, Any]) -> Call:
    """A step, with the parameter as the answer."""
    own = tuple(arrays)

    def call() -> np.ndarray:
        step(*own, **options)
        return own[0]

    return call


@fails_when_called
def step_in_torch(name: str, arrays: tuple[np.ndarray, ...]) -> Call | None:
    if torch is None:
        return None
    parameter = torch.nn.Parameter(torch.from_numpy(arrays[0].copy()))
    parameter.grad = torch.from_numpy(arrays[1])
    optimizer = (
        torch.optim.SGD([parameter], lr=0.01, momentum=0.9, fused=True)
        if name == "momentum_step"
        else torch.optim.Adam([parameter], lr=0.01, fused=True)
    )

    def call() -> Any:
        optimizer.step()
        return parameter.detach()

    return call


@fails_when_called
def step_in_jax(name: str, arrays: tuple[np.ndarray, ...]) -> Call | None:
    """A compiled step that donates its state, so that the next one is written over it."""
    if jax is None:
        return None
    # Copies: asarray may share NumPy's memory, which cannot be donated.
    parameter, gradient, *state = map(jax.numpy.array, arrays)
    if name == "momentum_step":
        step = partial(momentum_in_jax, lr=0.01, momentum=0.9)
    else:
        step, state = partial(adam_in_jax, lr=0.01), [*state, jax.numpy.zeros(())]
    compiled = jax.jit(step, donate_argnums=(0, 2))
    kept = [parameter, tuple(state)]

    def call() -> Any:
        kept[:] = jax.block_until_ready(compiled(kept[0], gradient, kept[1]))
        return kept[0]

    return call


def momentum_in_jax(parameter: Any, grad: Any, state: Any, *, lr: float, momentum: float) -> tuple[Any, Any]:
    """The parameter and its state after a step, as are those of `adam_in_jax`."""
    (velocity,) = state
    velocity = momentum * velocity + grad
    return parameter - lr * velocity, (velocity,)


def adam_in_jax(parameter: Any, grad: Any, state: Any, *, lr: float, eps: float = 1e-8) -> tuple[Any, Any]:
    mean, square, steps = state
    steps, mean = steps + 1, 0.9 * mean + 0.1 * grad
    square = 0.999 * square + 0.001 * grad * grad
    root = jax.numpy.sqrt(square / (1 - 0.999**steps)) + eps
    return parameter - lr * mean / (1 - 0.9**steps) / root, (mean, square, steps)


def call_rows() -> Iterator[Work]:
    """What a call costs: relu on 64 numbers."""
    x = random(64)
    y = np.empty_like(x)
    for way, out in (("out=", {"out": y}), ("new array", {})):
        yield Work(
            f"call relu 64, {way}",
            0,
            nbytes(x, y),
            exactly(definition.relu, x),
            present(
                fastnn=partial(fastnn.relu, x, **out),
                numpy=partial(np.maximum, x, 0, **out),
                torch=in_torch(torch.relu, x) if torch else None,
                jax=jitted(jax.nn.relu, x) if jax else None,
                onnxruntime=in_onnx("Relu", {"x": x}),
            ),
        )


FAMILIES: dict[str, Callable[[], Iterator[Work]]] = {
    "linear": linear_rows,
    "activations": activation_rows,
    "softmax": softmax_rows,
    "conv": conv_rows,
    "pooling": pooling_rows,
    "optimizers": optimizer_rows,
    "call": call_rows,
}


# ----------------------------------------------------------------------------------------------------
# Measuring


def answering(work: Work) -> dict[str, Call]:
    """Those who answer as the definition does; a rival that does not, or cannot be run here, is named and left out."""
    contenders = {}
    for name, call in work.contenders.items():
        try:
            verify(work, name)
        except Exception as problem:
            if name == "fastnn":
                raise
            print(f"{work.name}: without {name}: {failure_of(problem)}", file=sys.stderr)
        else:
            contenders[name] = call
    return contenders


def report(rows: list[tuple[Work, dict[str, float]]], limits: Limits) -> str:
    """A Markdown table, and what it comes to."""
    lines = [
        "| Work | fastnn | best rival | ratio | limit / fastnn | others |",
        "| :-- | --: | --: | --: | --: | :-- |",
    ]
    ratios = {}
    for work, seconds in rows:
        rivals = sorted((value, name) for name, value in seconds.items() if name != "fastnn")
        own, (best, winner) = seconds["fastnn"], rivals[0]
        ratios[work.name] = best / own
        others = ", ".join(f"{name} {duration(value)}" for value, name in rivals[1:])
        lines.append(
            f"| {work.name} | {duration(own)} | {winner} {duration(best)} | {best / own:.2f} "
            f"| {limits.seconds(work.flops, work.bytes, work.dtype) / own:.0%} | {others} |"
        )
    lost = sorted((ratio, name) for name, ratio in ratios.items() if ratio < 1)
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios.values()))
    lines += [
        "",
        f"{len(ratios)} rows: best rival / fastnn has the geometric mean {mean:.2f} and the median "
        f"{statistics.median(ratios.values()):.2f}; {len(lost)} rows are below 1.",
        "",
        *(f"- {name}: {ratio:.2f}" for ratio, name in lost),
    ]
    return "\n".join(lines)


def machine(threads: int, limits: Limits) -> str:
    versions = ", ".join(
        f"{module.__name__} {module.__version__}"
        for module in (np, scipy, sklearn, torch, jax, ort)
        if module is not None
    )
    return (
        f"{threads} thread(s), instruction set {fastnn.report()[0].module.split('.')[1]}, {versions}. Measured limits: "
        f"{limits}."
    )


def main(description: str | None, families: Mapping[str, Callable[[], Iterator[Work]]]) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--threads", type=int, default=1, help="of every library; default: 1")
    parser.add_argument("--only", default="", help="families or beginnings of row names, with commas between")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    asked = parser.parse_args()
    wanted = dict.fromkeys(THREAD_VARIABLES, str(asked.threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        # The variables are read when a library is imported: start again with them. JAX reads none, but has no more
        # threads than the process has processors.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.threads])
        return subprocess.call([sys.executable, *sys.argv], env={**os.environ, **wanted})
    if torch is not None:
        torch.set_num_threads(asked.threads)
    only = tuple(filter(None, asked.only.split(",")))
    pause = PAUSE if asked.threads > 1 else 0.0
    patience = Patience(least=asked.rounds, most=asked.rounds, pause=pause)
    rows = []
    for family, make in families.items():
        for work in make():
            if only and family not in only and not work.name.startswith(only):
                continue
            seconds, _ = interleaved(answering(work), time.perf_counter, patience)
            rows.append((work, {name: statistics.median(given) for name, given in seconds.items()}))
            print(
                work.name,
                {name: duration(value) for name, value in rows[-1][1].items()},
                file=sys.stderr,
                flush=True,
            )
    limits = measure(asked.threads)
    print(machine(asked.threads, limits), "", report(rows, limits), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(__doc__, FAMILIES))
