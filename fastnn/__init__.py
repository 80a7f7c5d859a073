"""Neural-network kernels on NumPy arrays: written in NumPy, Cython and Numba behind one name each.

`fastnn.relu`, `fastnn.linear`, `fastnn.conv2d` and the others are the best version that runs here; `report()` says
which, `backend(name)` gives another one, and `python -m fastnn info` prints all there is to know for a bug report.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastnn import _select
from fastnn._contract import KERNELS
from fastnn._pack import PackedWeight, pack
from fastnn._select import BackendError, available_backends, backend
from fastnn._threads import get_num_threads, num_threads, set_num_threads
from fastnn._version import __version__ as __version__
from fastnn._warmup import warmup
from fastnn.activations import *
from fastnn.conv import *
from fastnn.dropout import *
from fastnn.linear import *
from fastnn.losses import *
from fastnn.norm import *
from fastnn.optimizers import *
from fastnn.pooling import *
from fastnn.recurrent import *

_public = _select.PublicNames(globals())
set_backend = _public.set_backend
report = _public.report
#: Networks stand on the public names; most programs that use kernels alone never import these modules.
_NETWORKS = ("data", "init", "nn", "optim", "plot", "train")
_FUNCTIONS = {"trace": "fastnn._trace"}


def __getattr__(name: str) -> Any:
    """A module of networks, or `trace`, on its first use, or a kernel that is not bound yet."""
    if name in _NETWORKS:
        return import_module(f"fastnn.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    return _public.look_up(name)


__all__ = [
    *KERNELS,
    *_NETWORKS,
    *_FUNCTIONS,
    "BackendError",
    "PackedWeight",
    "available_backends",
    "backend",
    "get_num_threads",
    "num_threads",
    "pack",
    "report",
    "set_backend",
    "set_num_threads",
    "warmup",
]
