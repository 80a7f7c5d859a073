"""The element-wise kernels as formulas in as many digits as mpmath is told to have."""

from mpmath import mp

SELU_SCALE = mp.mpf("1.0507009873554804934193349852946")
SELU_ALPHA = mp.mpf("1.6732632423543772848170429916717")


def tanh_of_softplus(x):
    return mp.tanh(mp.log1p(mp.exp(x)))


def normal_cdf(x):
    """Of |x| >= 1000 the difference from 0 or 1 has more than 200,000 digits."""
    return mp.mpf(x > 0) if abs(x) > 1000 else mp.ncdf(x)


def tanh_gelu(x):
    return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


#: The function of x and the options, for each element-wise kernel and options of it.
FORMULAS = {
    ("step", ()): lambda x: mp.mpf(x >= 0),
    ("step", (("threshold", 0.5),)): lambda x: mp.mpf(x >= 0.5),
    ("sign", ()): mp.sign,
    ("relu", ()): lambda x: max(x, mp.mpf(0)),
    ("leaky_relu", ()): lambda x: x if x > 0 else x * mp.mpf(0.01),
    ("leaky_relu", (("negative_slope", 0.3),)): lambda x: x if x > 0 else x * mp.mpf(0.3),
    ("elu", ()): lambda x: x if x > 0 else mp.expm1(x),
    ("elu", (("alpha", 2),)): lambda x: x if x > 0 else 2 * mp.expm1(x),
    ("selu", ()): lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * mp.expm1(x)),
    ("gelu", ()): lambda x: x * normal_cdf(x),
    ("gelu", (("approximate", "tanh"),)): tanh_gelu,
    ("silu", ()): lambda x: x / (1 + mp.exp(-x)),
    ("softplus", ()): lambda x: mp.log1p(mp.exp(x)),
    ("sigmoid", ()): lambda x: 1 / (1 + mp.exp(-x)),
    ("hard_sigmoid", ()): lambda x: min(max(x / 6 + mp.mpf(1) / 2, mp.mpf(0)), mp.mpf(1)),
    ("tanh", ()): mp.tanh,
    ("hard_tanh", ()): lambda x: min(max(x, mp.mpf(-1)), mp.mpf(1)),
    ("softsign", ()): lambda x: x / (1 + abs(x)),
    ("mish", ()): lambda x: x * tanh_of_softplus(x),
}
