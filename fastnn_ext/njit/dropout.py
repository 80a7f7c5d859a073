"""Dropout by Numba; see `fastnn/dropout.py` for what each function is."""

import numpy as np

from fastnn_ext.checks import dropout as checks
from fastnn_ext.njit._options import njit, widest_vectors
from fastnn_ext.njit._reductions import inlined

_STEP, _FIRST, _SECOND = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_30, _27, _31, _11 = (np.uint64(bits) for bits in (30, 27, 31, 11))


@inlined
def _mix(z):
    """The mixing function of SplitMix64."""
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@njit
def _drop(x, y, state, threshold, scale):
    widest_vectors()
    real = x.dtype.type
    scale = real(scale)
    for i in range(x.size):
        bits = _mix(state + np.uint64(i) * _STEP) >> _11
        kept = x[i] * scale
        y[i] = kept if bits >= threshold else real(0)


def _dropout(x, p, seed, offset, output):
    state = (checks.scrambled(seed) + offset * int(_STEP)) % 2**64
    y = output.array
    _drop(x.ravel(), y.ravel(), np.uint64(state), np.uint64(checks.threshold(p)), checks.scale(p))
    return output.deliver()


def dropout(x, *, p=0.5, seed, offset=0, out=None):
    return _dropout(*checks.dropout("dropout", p, seed, offset, out, x=x))


def dropout_backward(grad_out, *, p=0.5, seed, offset=0, out=None):
    return _dropout(*checks.dropout("dropout_backward", p, seed, offset, out, grad_out=grad_out))
