"""The backends under test: each instruction set of the compiled kernels, Numba, and the definitions."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from fastnn import testing
from fastnn._contract import KERNELS, Kernel
from fastnn_ext.isa import isas_of

DTYPES = (np.float32, np.float64)


@dataclass(frozen=True)
class TestedBackend:
    """One set of implementations: its id, and the package that has a module for each family."""

    __test__ = False

    id: str
    package: str

    def function(self, kernel: Kernel) -> Callable[..., Any]:
        """This backend's version of `kernel`, which must exist."""
        try:
            return getattr(importlib.import_module(f"{self.package}.{kernel.family}"), kernel.name)
        except (ImportError, AttributeError) as error:
            reason = f"{self.id} lacks {kernel.name}: {error}"
        pytest.fail(reason)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in KERNELS:
            raise AttributeError(name)
        return self.function(KERNELS[name])

    def __str__(self) -> str:
        return self.id


def runnable_isas() -> list[str]:
    """The instruction sets that this processor and operating system can run, best first."""
    try:
        supports = importlib.import_module("fastnn_ext.baseline.cpu").supports
    except ImportError:  # nothing is compiled, so nobody can tell
        return [isa.name for isa in isas_of() if not isa.features]
    return [isa.name for isa in isas_of() if all(map(supports, isa.features))]


def known_backends() -> dict[str, TestedBackend]:
    """Every backend that could be tested on this machine, by id."""
    compiled = (TestedBackend(f"cython-{isa}", f"fastnn_ext.{isa}") for isa in runnable_isas())
    others = (TestedBackend("numba", "fastnn_ext.njit"), TestedBackend("numpy", "fastnn"))
    return {backend.id: backend for backend in (*compiled, *others)}


def is_there(backend: TestedBackend) -> bool:
    """Whether something of this backend is built and can be imported."""
    if backend.id == "numba":
        return importlib.util.find_spec("numba") is not None
    families = {kernel.family for kernel in KERNELS.values()}
    return any(importlib.util.find_spec(f"{backend.package}.{family}") for family in families)


def ids_of(names: str) -> set[str]:
    """The ids meant by comma-separated names, in which "cython" stands for every instruction set."""
    known = known_backends()
    ids: set[str] = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        meant = [one for one in known if one == name or one.startswith(f"{name}-")]
        if not meant:
            raise pytest.UsageError(f"unknown backend {name!r}; known here: cython, {', '.join(known)}")
        ids.update(meant)
    return ids


def required_ids() -> set[str]:
    """The backends that must be there."""
    required = os.environ.get("FASTNN_TEST_BACKENDS", "")
    if os.environ.get("FASTNN_BUILD") == "require":
        required += ",cython"
    return ids_of(required)


def tested_backends(narrowed: str) -> list[TestedBackend]:
    """The backends of this run: those that are there or must be, narrowed to those asked for."""
    asked, required = ids_of(narrowed), required_ids()
    return [
        backend
        for backend in known_backends().values()
        if (backend.id in asked if asked else backend.id in required or is_there(backend))
    ]


@lru_cache(maxsize=4)
def cases_of(kernel: str, dtype: type[np.floating[Any]]) -> Sequence[testing.Case]:
    """The whole grid of a kernel, kept while the backends take turns."""
    return testing.cases(KERNELS[kernel], dtype)


@lru_cache(maxsize=4)
def small_cases_of(kernel: str, dtype: type[np.floating[Any]]) -> Sequence[testing.Case]:
    """One small case for each value of each option, kept while the backends take turns."""
    return testing.cases(KERNELS[kernel], dtype, sizes=())


@lru_cache(maxsize=4)
def gradient_cases_of(kernel: str) -> Sequence[testing.Case]:
    """The gradient cases of a kernel, kept while the backends take turns."""
    return testing.gradient_cases(KERNELS[kernel])
