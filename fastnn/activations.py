"""Activations: element-wise functions with their derivatives, softmax and log-softmax.

Each function is followed by its derivative f'(x), taken at the pre-activation x, and by its backward, which
turns the gradient of the output into that of the input from what the forward pass saved: grad_out * f', or
grad_out times the Jacobian. NaN gives NaN everywhere; at infinity each function takes its limit.

At a kink the derivative is that of the flat or the lower side, as in PyTorch: 0 for relu, hard_sigmoid,
hard_tanh, step and sign, `negative_slope` for leaky_relu, `alpha` for elu.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn._contract import KERNELS, Draw, Function, kernel, with_sections
from fastnn_ext.checks import activations as checks

Array = NDArray[np.floating[Any]]

#: From one element, where the cost of a call is all there is, to as many as a cache holds.
WORKLOADS = {f"n={n:.0e}".replace("e+0", "e"): {"n": n} for n in (1, 100, 10_000, 1_000_000)}
#: And to more than any cache holds.
SWEEP = {**WORKLOADS, "n=3e7": {"n": 30_000_000}}
#: Class scores of a mini-batch, attention rows, one long row, and channels of images.
SOFTMAX_WORKLOADS = {
    "128x10": {"n": 128, "classes": 10, "axis": -1},
    "4096x10": {"n": 4096, "classes": 10, "axis": -1},
    "512x1000": {"n": 512, "classes": 1000, "axis": -1},
    "1x1000000": {"n": 1, "classes": 1_000_000, "axis": -1},
    "64x4096, axis 0": {"n": 64, "classes": 4096, "axis": 0},
}

#: Where the exponentials of this module have long reached 0 in every dtype: a factor x is held to this range,
#: so that infinity times 0 is 0, the limit.
_FAR = 1000.0

_PARAMETERS = {
    "x": "x : array_like, any shape\n    Pre-activation.",
    "grad_out": "grad_out : array_like, any shape\n    Gradient of the output.",
    "y": "y : array_like, shape of `grad_out`\n    Output that the forward pass gave.",
    "threshold": "threshold : float\n    Any finite number.",
    "negative_slope": "negative_slope : float\n    Any finite number.",
    "alpha": "alpha : float\n    Any finite number.",
    "approximate": 'approximate : {"none", "tanh"}\n    Whether the distribution function is approximated.',
    "axis": "axis : int\n    The axis along which the values sum to 1.",
    "out": "out : ndarray, optional\n    Written and returned when given; may be an argument itself.",
}
_PRE_ACTIVATION = "x : array_like, shape of `grad_out`\n    Pre-activation that the forward pass had."
_REFUSED = {
    "grad_out": "Where the shapes differ.",
    "threshold": "Where `threshold` is not finite.",
    "negative_slope": "Where `negative_slope` is not finite.",
    "alpha": "Where `alpha` is not finite.",
    "approximate": "Where `approximate` is neither.",
    "axis": "Where there is no such axis.",
    "out": "Where `out` has another shape or dtype, is read-only, or overlaps an argument that it is not.",
}


def _documented(definition: Function) -> Function:
    """Add to the docstring what all activations share: parameters, result, errors and promised precision."""
    contract = KERNELS[definition.__name__]
    names = tuple(contract.signature.parameters)
    first, backward = names[0], contract.backward_of is not None
    texts = {**_PARAMETERS, "x": _PRE_ACTIVATION} if backward else _PARAMETERS
    dtype = "their common" if backward else "its"
    refused = [text for name, text in _REFUSED.items() if name in names]
    accuracy = f"Error at most {contract.ulp:g} ulp" if contract.ulp else "Exact"
    if contract.floor:
        unit = " max |grad_out|" if backward else ""
        accuracy += f" of max(|result|, {contract.floor:g}{unit})"
    sections = {
        "Parameters": "\n".join(texts[name] for name in names),
        "Returns": f"ndarray\n    Of the shape of `{first}`, in {dtype} float dtype.",
        "Raises": "\n    ".join(["TypeError", "Where an argument is not real.\nValueError", *refused]),
        "Notes": f"{accuracy}.",
    }
    definition.__doc__ = with_sections(definition.__doc__, sections)
    return definition


def _vector(draw: Draw, **_: Any) -> dict[str, Any]:
    return {"x": draw.real(draw.size("n"), low=-8, high=8)}


def _where(condition: Any, yes: float, no: float, x: Array) -> Array:
    """One of two numbers for each element of x, in its dtype; NaN where x is NaN."""
    values = np.where(condition, x.dtype.type(yes), x.dtype.type(no))
    return np.where(np.isnan(x), x, values)


def _zero(x: Array) -> Array:
    return _where(False, 0, 0, x)


# ----------------------------------------------------------------------------------------------------
# Steps and ramps


@_documented
@kernel(example=_vector, options={"threshold": (0, 0.5)}, ulp=0, kinks=(0, 0.5), workloads=WORKLOADS)
def step(x: ArrayLike, *, threshold: float = 0, out: Array | None = None) -> Array:
    """Heaviside step: 1 where x >= threshold, else 0."""
    threshold = checks.option("step", "threshold", threshold)
    z, y = checks.forward("step", out, x)
    return y.fill(_where(z >= threshold, 1, 0, z))


@_documented
@kernel(derivative_of="step", ulp=0)
def step_derivative(x: ArrayLike, *, threshold: float = 0, out: Array | None = None) -> Array:
    """Derivative of `step`: 0."""
    checks.option("step_derivative", "threshold", threshold)
    z, y = checks.forward("step_derivative", out, x)
    return y.fill(_zero(z))


@_documented
@kernel(backward_of="step", ulp=0)
def step_backward(
    grad_out: ArrayLike, x: ArrayLike, *, threshold: float = 0, out: Array | None = None
) -> Array:
    """Gradient of the input of `step`: 0."""
    checks.option("step_backward", "threshold", threshold)
    g, z, grad = checks.backward("step_backward", out, grad_out, x=x)
    return grad.fill(g * _zero(z))


@_documented
@kernel(example=_vector, ulp=0, kinks=(0,), workloads=WORKLOADS)
def sign(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Sign: -1, 0 or 1."""
    z, y = checks.forward("sign", out, x)
    return y.fill(np.sign(z))


@_documented
@kernel(derivative_of="sign", ulp=0)
def sign_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `sign`: 0."""
    z, y = checks.forward("sign_derivative", out, x)
    return y.fill(_zero(z))


@_documented
@kernel(backward_of="sign", ulp=0)
def sign_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `sign`: 0."""
    g, z, grad = checks.backward("sign_backward", out, grad_out, x=x)
    return grad.fill(g * _zero(z))


@_documented
@kernel(example=_vector, ulp=0, kinks=(0,), workloads=SWEEP)
def relu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Rectified linear unit, max(x, 0).

    Nair, Hinton: Rectified linear units improve restricted Boltzmann machines. ICML 2010.
    """
    z, y = checks.forward("relu", out, x)
    return y.fill(np.maximum(z, 0))


@_documented
@kernel(derivative_of="relu", ulp=0)
def relu_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `relu`: 1 where x > 0, else 0."""
    z, y = checks.forward("relu_derivative", out, x)
    return y.fill(derivative_from_output("relu", z))


@_documented
@kernel(backward_of="relu", ulp=0)
def relu_backward(grad_out: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `relu` from its output: grad_out * (y > 0)."""
    g, result, grad = checks.backward("relu_backward", out, grad_out, y=y)
    return grad.fill(g * derivative_from_output("relu", result))


@_documented
@kernel(
    example=_vector, options={"negative_slope": (0.01, 0.3, -0.5)}, ulp=1, kinks=(0,), workloads=WORKLOADS
)
def leaky_relu(x: ArrayLike, *, negative_slope: float = 0.01, out: Array | None = None) -> Array:
    """Leaky rectified linear unit, max(x, 0) + negative_slope * min(x, 0).

    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models. ICML 2013.
    """
    negative_slope = checks.option("leaky_relu", "negative_slope", negative_slope)
    z, y = checks.forward("leaky_relu", out, x)
    return y.fill(np.maximum(z, 0) + negative_slope * np.minimum(z, 0))


@_documented
@kernel(derivative_of="leaky_relu", ulp=1)
def leaky_relu_derivative(x: ArrayLike, *, negative_slope: float = 0.01, out: Array | None = None) -> Array:
    """Derivative of `leaky_relu`: 1 where x > 0, else negative_slope."""
    negative_slope = checks.option("leaky_relu_derivative", "negative_slope", negative_slope)
    z, y = checks.forward("leaky_relu_derivative", out, x)
    return y.fill(_leaky_relu_derivative(z, negative_slope))


@_documented
@kernel(backward_of="leaky_relu", ulp=2)
def leaky_relu_backward(
    grad_out: ArrayLike, x: ArrayLike, *, negative_slope: float = 0.01, out: Array | None = None
) -> Array:
    """Gradient of the input of `leaky_relu`: grad_out times its derivative."""
    negative_slope = checks.option("leaky_relu_backward", "negative_slope", negative_slope)
    g, z, grad = checks.backward("leaky_relu_backward", out, grad_out, x=x)
    return grad.fill(g * _leaky_relu_derivative(z, negative_slope))


def _leaky_relu_derivative(x: Array, negative_slope: float) -> Array:
    return _where(x > 0, 1, negative_slope, x)


# ----------------------------------------------------------------------------------------------------
# Exponential linear units


@_documented
@kernel(example=_vector, options={"alpha": (1, 0.5, 2)}, ulp=4, kinks=(0,), workloads=WORKLOADS)
def elu(x: ArrayLike, *, alpha: float = 1, out: Array | None = None) -> Array:
    """Exponential linear unit: x where x > 0, else alpha * (exp(x) - 1).

    Clevert, Unterthiner, Hochreiter: Fast and accurate deep network learning by exponential linear units
    (ELUs). ICLR 2016.
    """
    alpha = checks.option("elu", "alpha", alpha)
    z, y = checks.forward("elu", out, x)
    return y.fill(np.maximum(z, 0) + alpha * np.expm1(np.minimum(z, 0)))


@_documented
@kernel(derivative_of="elu", ulp=4)
def elu_derivative(x: ArrayLike, *, alpha: float = 1, out: Array | None = None) -> Array:
    """Derivative of `elu`: 1 where x > 0, else alpha * exp(x)."""
    alpha = checks.option("elu_derivative", "alpha", alpha)
    z, y = checks.forward("elu_derivative", out, x)
    return y.fill(_elu_derivative(z, 1, alpha))


@_documented
@kernel(backward_of="elu", ulp=6)
def elu_backward(grad_out: ArrayLike, x: ArrayLike, *, alpha: float = 1, out: Array | None = None) -> Array:
    """Gradient of the input of `elu`: grad_out times its derivative."""
    alpha = checks.option("elu_backward", "alpha", alpha)
    g, z, grad = checks.backward("elu_backward", out, grad_out, x=x)
    return grad.fill(g * _elu_derivative(z, 1, alpha))


def _elu_derivative(x: Array, scale: float, alpha: float) -> Array:
    return np.where(x > 0, x.dtype.type(scale), scale * alpha * np.exp(np.minimum(x, 0)))


#: With these two, activations of zero mean and unit variance keep both (Klambauer et al., 2017).
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


@_documented
@kernel(example=_vector, ulp=4, kinks=(0,), workloads=WORKLOADS)
def selu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Scaled exponential linear unit, scale * elu(x, alpha), scale = 1.0507009873, alpha = 1.6732632423.

    Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks. NeurIPS 2017.
    """
    z, y = checks.forward("selu", out, x)
    return y.fill(_SELU_SCALE * np.maximum(z, 0) + _SELU_SCALE * _SELU_ALPHA * np.expm1(np.minimum(z, 0)))


@_documented
@kernel(derivative_of="selu", ulp=4)
def selu_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `selu`: scale where x > 0, else scale * alpha * exp(x)."""
    z, y = checks.forward("selu_derivative", out, x)
    return y.fill(_elu_derivative(z, _SELU_SCALE, _SELU_ALPHA))


@_documented
@kernel(backward_of="selu", ulp=6)
def selu_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `selu`: grad_out times its derivative."""
    g, z, grad = checks.backward("selu_backward", out, grad_out, x=x)
    return grad.fill(g * _elu_derivative(z, _SELU_SCALE, _SELU_ALPHA))


# ----------------------------------------------------------------------------------------------------
# x times a distribution function


@_documented
@kernel(example=_vector, options={"approximate": ("none", "tanh")}, ulp=4, floor=0.25, workloads=WORKLOADS)
def gelu(x: ArrayLike, *, approximate: str = "none", out: Array | None = None) -> Array:
    """Gaussian error linear unit, x * P(X <= x) for a standard normal X.

    The distribution function is (1 + erf(x / sqrt(2))) / 2, or with `approximate="tanh"`
    (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2.

    Hendrycks, Gimpel: Gaussian error linear units (GELUs). arXiv:1606.08415.
    """
    approximate = checks.approximate("gelu", approximate)
    z, y = checks.forward("gelu", out, x)
    cdf = _normal_cdf(z) if approximate == "none" else _sigmoid(_tanh_argument(z))
    return y.fill(np.maximum(z, -_FAR) * cdf)


@_documented
@kernel(derivative_of="gelu", ulp=4, floor=1)
def gelu_derivative(x: ArrayLike, *, approximate: str = "none", out: Array | None = None) -> Array:
    """Derivative of `gelu`: P(x) + x p(x), with the distribution function P and its derivative p."""
    approximate = checks.approximate("gelu_derivative", approximate)
    z, y = checks.forward("gelu_derivative", out, x)
    return y.fill(_gelu_derivative(z, approximate))


@_documented
@kernel(backward_of="gelu", ulp=4, floor=1)
def gelu_backward(
    grad_out: ArrayLike, x: ArrayLike, *, approximate: str = "none", out: Array | None = None
) -> Array:
    """Gradient of the input of `gelu`: grad_out times its derivative."""
    approximate = checks.approximate("gelu_backward", approximate)
    g, z, grad = checks.backward("gelu_backward", out, grad_out, x=x)
    return grad.fill(g * _gelu_derivative(z, approximate))


_erfc = np.frompyfunc(math.erfc, 1, 1)


def _normal_cdf(x: Array) -> Array:
    """The standard normal distribution function; NumPy has no erf, so this goes through Python's."""
    return np.asarray(_erfc(np.multiply(x, -math.sqrt(0.5), dtype=np.float64)), x.dtype) / 2


def _tanh_argument(x: Array) -> Array:
    """Twice u in (1 + tanh(u)) / 2, which is sigmoid(2 u) and has no cancellation in that form."""
    x = np.clip(x, -_FAR, _FAR)
    return math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x)


def _gelu_derivative(x: Array, approximate: str) -> Array:
    z = np.clip(x, -_FAR, _FAR)
    if approximate == "none":
        return _normal_cdf(z) + z * (np.exp(-z * z / 2) / math.sqrt(2 * math.pi))
    u = _tanh_argument(z)
    slope = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * z * z)
    return _sigmoid(u) + z * slope * _sigmoid_derivative(u)


@_documented
@kernel(example=_vector, ulp=4, workloads=WORKLOADS)
def silu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Sigmoid linear unit (swish), x * sigmoid(x).

    Elfwing, Uchibe, Doya: Sigmoid-weighted linear units for neural network function approximation in
    reinforcement learning. Neural Networks 107, 2018.
    """
    z, y = checks.forward("silu", out, x)
    return y.fill(_mend_far_left(z, np.maximum(z, -_FAR) * _sigmoid(z)))


@_documented
@kernel(derivative_of="silu", ulp=4, floor=1)
def silu_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `silu`: s + x s (1 - s) with s = sigmoid(x)."""
    z, y = checks.forward("silu_derivative", out, x)
    return y.fill(_silu_derivative(z))


@_documented
@kernel(backward_of="silu", ulp=4, floor=1)
def silu_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `silu`: grad_out times its derivative."""
    g, z, grad = checks.backward("silu_backward", out, grad_out, x=x)
    return grad.fill(g * _silu_derivative(z))


def _mend_far_left(x: Array, y: Array) -> Array:
    """x exp(x), as silu and mish are where exp(x) is denormal, by two factors that are not."""
    low = np.log(np.finfo(x.dtype).tiny)
    far = x < low
    if np.any(far):
        half = np.ceil(low / 2)
        z = np.clip(x, -_FAR, low)
        y = np.where(far, z * np.exp(z - half) * np.exp(half), y)
    return y


def _silu_derivative(x: Array) -> Array:
    return _sigmoid(x) + np.clip(x, -_FAR, _FAR) * _sigmoid_derivative(x)


@_documented
@kernel(example=_vector, ulp=6, workloads=WORKLOADS)
def mish(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Mish, x * tanh(softplus(x)).

    Misra: Mish, a self regularized non-monotonic activation function. BMVC 2020.
    """
    z, y = checks.forward("mish", out, x)
    return y.fill(_mend_far_left(z, np.maximum(z, -_FAR) * np.tanh(_softplus(z))))


@_documented
@kernel(derivative_of="mish", ulp=4, floor=1)
def mish_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `mish`: tanh(s) + x sigmoid(x) / cosh(s)^2 with s = softplus(x)."""
    z, y = checks.forward("mish_derivative", out, x)
    return y.fill(_mish_derivative(z))


@_documented
@kernel(backward_of="mish", ulp=4, floor=1)
def mish_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `mish`: grad_out times its derivative."""
    g, z, grad = checks.backward("mish_backward", out, grad_out, x=x)
    return grad.fill(g * _mish_derivative(z))


def _mish_derivative(x: Array) -> Array:
    z = np.clip(x, -_FAR, 40)  # from 40 on this is 1 to the last place, and cosh^2 still fits a float32
    s = _softplus(z)
    result: Array = np.tanh(s) + z * _sigmoid(z) / np.cosh(s) ** 2
    return result


# ----------------------------------------------------------------------------------------------------
# Sigmoids


@_documented
@kernel(example=_vector, ulp=4, workloads=WORKLOADS)
def softplus(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Softplus, log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|))."""
    z, y = checks.forward("softplus", out, x)
    return y.fill(_softplus(z))


@_documented
@kernel(derivative_of="softplus", ulp=4)
def softplus_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `softplus`: sigmoid(x)."""
    z, y = checks.forward("softplus_derivative", out, x)
    return y.fill(_sigmoid(z))


@_documented
@kernel(backward_of="softplus", ulp=4)
def softplus_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `softplus`: grad_out * sigmoid(x)."""
    g, z, grad = checks.backward("softplus_backward", out, grad_out, x=x)
    return grad.fill(g * _sigmoid(z))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@_documented
@kernel(example=_vector, ulp=4, workloads=SWEEP)
def sigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Logistic sigmoid, 1 / (1 + exp(-x)), without overflow."""
    z, y = checks.forward("sigmoid", out, x)
    return y.fill(_sigmoid(z))


@_documented
@kernel(derivative_of="sigmoid", ulp=6)
def sigmoid_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `sigmoid`: s (1 - s) with s = sigmoid(x), as e / (1 + e)^2 with e = exp(-|x|)."""
    z, y = checks.forward("sigmoid_derivative", out, x)
    return y.fill(_sigmoid_derivative(z))


@_documented
@kernel(backward_of="sigmoid", ulp=4)
def sigmoid_backward(grad_out: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `sigmoid` from its output: grad_out * y (1 - y)."""
    g, result, grad = checks.backward("sigmoid_backward", out, grad_out, y=y)
    return grad.fill(g * derivative_from_output("sigmoid", result))


def _sigmoid(x: Array) -> Array:
    e: Array = np.exp(-np.abs(x))
    numerator: Array = np.where(x >= 0, 1, e)
    return numerator / (1 + e)


def _sigmoid_derivative(x: Array) -> Array:
    e: Array = np.exp(-np.abs(x))
    return e / np.square(1 + e)


@_documented
@kernel(example=_vector, ulp=2, kinks=(-3, 3), workloads=WORKLOADS)
def hard_sigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Piecewise linear sigmoid, min(max(x + 3, 0), 6) / 6.

    Howard et al.: Searching for MobileNetV3. ICCV 2019 (with this slope; others use 0.2).
    """
    z, y = checks.forward("hard_sigmoid", out, x)
    return y.fill(np.clip(z + 3, 0, 6) / 6)


@_documented
@kernel(derivative_of="hard_sigmoid", ulp=1)
def hard_sigmoid_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `hard_sigmoid`: 1 / 6 where -3 < x < 3, else 0."""
    z, y = checks.forward("hard_sigmoid_derivative", out, x)
    return y.fill(_hard_sigmoid_derivative(z))


@_documented
@kernel(backward_of="hard_sigmoid", ulp=2)
def hard_sigmoid_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `hard_sigmoid`: grad_out times its derivative."""
    g, z, grad = checks.backward("hard_sigmoid_backward", out, grad_out, x=x)
    return grad.fill(g * _hard_sigmoid_derivative(z))


def _hard_sigmoid_derivative(x: Array) -> Array:
    return _where(np.abs(x) < 3, 1 / 6, 0, x)


@_documented
@kernel(example=_vector, ulp=4, workloads=SWEEP)
def tanh(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Hyperbolic tangent."""
    z, y = checks.forward("tanh", out, x)
    return y.fill(np.tanh(z))


@_documented
@kernel(derivative_of="tanh", ulp=6)
def tanh_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `tanh`: 1 - tanh(x)^2, as 4 e / (1 + e)^2 with e = exp(-2 |x|)."""
    z, y = checks.forward("tanh_derivative", out, x)
    return y.fill(4 * _sigmoid_derivative(np.clip(z, -_FAR, _FAR) * 2))


@_documented
@kernel(backward_of="tanh", ulp=4)
def tanh_backward(grad_out: ArrayLike, y: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `tanh` from its output: grad_out * (1 - y^2)."""
    g, result, grad = checks.backward("tanh_backward", out, grad_out, y=y)
    return grad.fill(g * derivative_from_output("tanh", result))


@_documented
@kernel(example=_vector, ulp=0, kinks=(-1, 1), workloads=WORKLOADS)
def hard_tanh(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Piecewise linear tanh, min(max(x, -1), 1).

    Collobert: Large scale machine learning. Thesis, Université Paris VI, 2004.
    """
    z, y = checks.forward("hard_tanh", out, x)
    return y.fill(np.clip(z, -1, 1))


@_documented
@kernel(derivative_of="hard_tanh", ulp=0)
def hard_tanh_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `hard_tanh`: 1 where -1 < x < 1, else 0."""
    z, y = checks.forward("hard_tanh_derivative", out, x)
    return y.fill(_hard_tanh_derivative(z))


@_documented
@kernel(backward_of="hard_tanh", ulp=0)
def hard_tanh_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `hard_tanh`: grad_out times its derivative."""
    g, z, grad = checks.backward("hard_tanh_backward", out, grad_out, x=x)
    return grad.fill(g * _hard_tanh_derivative(z))


def _hard_tanh_derivative(x: Array) -> Array:
    return _where(np.abs(x) < 1, 1, 0, x)


@_documented
@kernel(example=_vector, ulp=2, workloads=WORKLOADS)
def softsign(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Softsign, x / (1 + |x|).

    Bergstra, Desjardins, Lamblin, Bengio: Quadratic polynomials learn better image features. Technical report
    1337, Université de Montréal, 2009.
    """
    z, y = checks.forward("softsign", out, x)
    z = np.clip(z, -1e30, 1e30)  # where it is 1 to the last place, so that infinity gives 1 too
    return y.fill(z / (1 + np.abs(z)))


@_documented
@kernel(derivative_of="softsign", ulp=4)
def softsign_derivative(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Derivative of `softsign`: 1 / (1 + |x|)^2."""
    z, y = checks.forward("softsign_derivative", out, x)
    return y.fill(_softsign_derivative(z))


@_documented
@kernel(backward_of="softsign", ulp=4)
def softsign_backward(grad_out: ArrayLike, x: ArrayLike, *, out: Array | None = None) -> Array:
    """Gradient of the input of `softsign`: grad_out times its derivative."""
    g, z, grad = checks.backward("softsign_backward", out, grad_out, x=x)
    return grad.fill(g * _softsign_derivative(z))


def _softsign_derivative(x: Array) -> Array:
    return np.square(1 / (1 + np.abs(x)))


# ----------------------------------------------------------------------------------------------------
# Softmax


def _scores(draw: Draw, **_: Any) -> dict[str, Any]:
    return {"x": draw.real(draw.size("n"), draw.size("classes"), low=-8, high=8)}


@_documented
@kernel(example=_scores, options={"axis": (-1, 0)}, ulp=16, workloads=SOFTMAX_WORKLOADS)
def softmax(x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """Softmax along an axis, exp(x) / sum(exp(x)), without overflow.

    Elements of minus infinity get 0. Where all are, or one is plus infinity, the result is NaN.

    The relative error of an element grows by half an ulp for each unit that it is below the largest one; the
    promise is for up to 24 units.

    Bridle: Probabilistic interpretation of feedforward classification network outputs. Neurocomputing, 1990.
    """
    z, axis, y = checks.softmax("softmax", out, axis, x)
    e = np.exp(_below_maximum(z, axis))
    return y.fill(e / _sum(e, axis))


@_documented
@kernel(backward_of="softmax", ulp=8, floor=1)
def softmax_backward(grad_out: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """Gradient of the input of `softmax` from its output: y * (grad_out - sum(grad_out * y))."""
    g, result, axis, grad = checks.softmax_backward("softmax_backward", out, axis, grad_out, y)
    return grad.fill(result * (g - _sum(g * result, axis)))


@_documented
@kernel(example=_scores, options={"axis": (-1, 0)}, ulp=8, floor=1, workloads=SOFTMAX_WORKLOADS)
def log_softmax(x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """Logarithm of softmax along an axis, x - log(sum(exp(x))), without overflow.

    Where all elements are minus infinity, or one is plus infinity, the result is NaN.
    """
    z, axis, y = checks.softmax("log_softmax", out, axis, x)
    z = _below_maximum(z, axis)
    with np.errstate(divide="ignore"):  # the sum of no elements
        return y.fill(z - np.log(_sum(np.exp(z), axis)))


@_documented
@kernel(backward_of="log_softmax", ulp=32, floor=1)
def log_softmax_backward(
    grad_out: ArrayLike, y: ArrayLike, *, axis: int = -1, out: Array | None = None
) -> Array:
    """Gradient of the input of `log_softmax` from its output: grad_out - exp(y) * sum(grad_out).

    The promise is for sums of up to 10 max |grad_out|.
    """
    g, result, axis, grad = checks.softmax_backward("log_softmax_backward", out, axis, grad_out, y)
    return grad.fill(g - np.exp(result) * _sum(g, axis))


def _below_maximum(x: Array, axis: int) -> Array:
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        below: Array = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return below


def _sum(x: Array, axis: int) -> Array:
    """The sum along `axis`, added up in float64 so that its error does not grow with the length."""
    return np.asarray(np.sum(x, axis=axis, keepdims=True, dtype=np.float64), x.dtype)


# ----------------------------------------------------------------------------------------------------
# Activations of other kernels: linear(activation="relu") and the like


def activate(activation: str | None, x: Array) -> Array:
    """f(x) of the activation of that name with its default options; x itself for None."""
    if activation is None:
        return x
    result: Array = KERNELS[activation].definition(x)
    return result


def derivative_from_output(activation: str | None, y: Array) -> Array:
    """f' at the point where f is y, for the activations that allow it."""
    if activation is None:
        return np.ones_like(y)
    if activation == "relu":
        return _where(y > 0, 1, 0, y)
    if activation == "sigmoid":
        return y * (1 - y)
    if activation == "tanh":
        return (1 - y) * (1 + y)
    raise ValueError(f"the derivative of {activation} does not follow from its output")
