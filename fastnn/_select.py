"""Who stands behind each name: the only door to the compiled kernels.

The order is cython, then numpy; numba only where it is asked for or where cython is not built. What a backend lacks
comes from the next one, and `report()` says so; `FASTNN_STRICT=1` makes it an error. `FASTNN_BACKEND` picks the
backend and `FASTNN_ISA` caps the instruction set of the compiled one. Everything here is settled once, on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import fastnn_ext
from fastnn._contract import KERNELS, Kernel
from fastnn_ext.isa import ISAS, isas_of

BACKENDS = ("cython", "numba", "numpy")


class BackendError(ImportError):
    """A backend that was asked for is not there, or lacks a kernel in strict mode; the message says why."""


@dataclass(frozen=True)
class Binding:
    """One row of the report: a kernel, the backend and module behind it, and why no faster one is."""

    kernel: str
    backend: str
    module: str
    function: Callable[..., Any]
    reason: str = ""


class Report(tuple[Binding, ...]):
    """The bindings of a backend, one per kernel; prints as a table."""

    def __str__(self) -> str:
        width = max((len(row.kernel) for row in self), default=0)
        return "\n".join(
            f"{row.kernel:{width}}  {row.backend:7} {row.module}{f'  ({row.reason})' if row.reason else ''}"
            for row in self
        )


class Backend:
    """The kernels of one backend as attributes with the public names."""

    def __init__(self, name: str, bindings: Report) -> None:
        self.name = name
        self.report = bindings
        for row in bindings:
            setattr(self, row.kernel, row.function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"fastnn has no kernel {name!r}")

    def __iter__(self) -> Iterator[str]:
        return (row.kernel for row in self.report)

    def __repr__(self) -> str:
        own = sum(row.backend == self.name for row in self.report)
        return f"<fastnn backend {self.name!r}: {own} of {len(self.report)} kernels its own>"


def _environment(variable: str, known: tuple[str, ...]) -> str | None:
    value = os.environ.get(variable, "").strip().lower()
    if value and value not in known:
        raise ValueError(f"{variable} is {value!r}; expected one of {', '.join(known)}")
    return value or None


def is_strict() -> bool:
    """Whether a kernel that the chosen backend lacks is an error (`FASTNN_STRICT=1`)."""
    return _environment("FASTNN_STRICT", ("0", "1")) == "1"


@cache
def instruction_set() -> tuple[str | None, str]:
    """The folder of compiled modules that this process uses, or None; and why not a better one."""
    cap = _environment("FASTNN_ISA", tuple(isa.name for isa in ISAS))
    try:
        cpu = _cpu()
    except ImportError as error:
        return None, f"nothing is compiled: {_build_failure() or error}"
    reasons = []
    capped = cap is not None
    for isa in isas_of():
        capped = capped and isa.name != cap
        missing = [feature for feature in isa.features if not cpu.supports(feature)]
        if capped:
            reasons.append(f"{isa.name}: above FASTNN_ISA={cap}")
        elif missing:
            reasons.append(f"{isa.name}: the processor or the operating system has no {', '.join(missing)}")
        elif importlib.util.find_spec(f"fastnn_ext.{isa.name}.activations") is None:
            reasons.append(f"{isa.name}: {_build_failure() or 'not built'}")
        else:
            return isa.name, "; ".join(reasons)
    return None, "; ".join(reasons) or "no instruction set is known for this machine"


def _cpu() -> ModuleType:
    """The probe of the processor, compiled for the baseline: the one module that can be imported before asking."""
    return importlib.import_module("fastnn_ext.baseline.cpu")


def thread_pool() -> ModuleType | None:
    """The worker threads of the compiled kernels, one pool for all instruction sets; None where nothing is compiled."""
    try:
        return importlib.import_module("fastnn_ext.baseline.threads")
    except ImportError:
        return None


def compiler() -> str:
    """The compiler that built the compiled kernels; empty where nothing is compiled."""
    try:
        return str(_cpu().compiler())
    except ImportError:
        return ""


def _build_failure() -> str:
    """What the build wrote down about a compiler that did not work; empty where it wrote nothing."""
    import json  # here, for it takes a tenth of the time of importing fastnn

    try:
        with open(
            os.path.join(os.path.dirname(fastnn_ext.__file__), "build_info.json"), encoding="utf-8"
        ) as note:
            return str(json.load(note)["error"])
    except (OSError, ValueError, KeyError):
        return ""


def _package_of(backend: str) -> str:
    """The package that holds the kernels of `backend`; a BackendError says why there is none."""
    if backend == "numpy":
        return "fastnn"
    if backend == "numba":
        try:
            importlib.import_module("numba")
        except Exception as error:  # numba raises whatever it likes where it does not fit NumPy or Python
            raise BackendError(f"numba cannot be imported: {type(error).__name__}: {error}") from error
        return "fastnn_ext.njit"
    folder, why_not = instruction_set()
    if folder is None:
        raise BackendError(f"no compiled kernels: {why_not}")
    return f"fastnn_ext.{folder}"


def _module(backend: str, family: str) -> ModuleType:
    return importlib.import_module(f"{_package_of(backend)}.{family}")


def _bind(kernel: Kernel, order: tuple[str, ...]) -> Binding:
    reasons = []
    for backend in order:
        try:
            module = _module(backend, kernel.family)
            function = getattr(module, kernel.name)
        except (ImportError, AttributeError) as error:
            reasons.append(f"{backend}: {error}")
            continue
        if function is not kernel.definition:
            function.__doc__ = kernel.definition.__doc__
        return Binding(kernel.name, backend, module.__name__, function, "; ".join(reasons))
    raise BackendError(f"no backend has {kernel.name}: {'; '.join(reasons)}")


@cache
def backend(name: str) -> Backend:
    """The kernels of backend `name` ("cython", "numba" or "numpy") under their public names.

    Raises
    ------
    ValueError
        Where the name is unknown.
    BackendError
        Where the backend is not installed or not built, or, with `FASTNN_STRICT=1`, lacks a kernel.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend: name is {name!r}; expected one of {', '.join(BACKENDS)}")
    _package_of(name)
    order = (name,) if is_strict() or name == "numpy" else (name, "numpy")
    return Backend(name, Report(_bind(kernel, order) for kernel in KERNELS.values()))


def why_unavailable(name: str) -> str:
    """Why backend `name` cannot be used here; empty where it can."""
    try:
        _package_of(name)
    except BackendError as error:
        return str(error)
    return ""


def available_backends() -> tuple[str, ...]:
    """The backends that can be used here, best first; this imports Numba where it is installed."""
    return tuple(name for name in BACKENDS if not why_unavailable(name))


def default_backend() -> str:
    """The backend that the public names start with: `FASTNN_BACKEND`, or the first of the order that is there."""
    asked = _environment("FASTNN_BACKEND", BACKENDS)
    if asked:
        return asked
    if instruction_set()[0] is not None:
        return "cython"
    return "numba" if importlib.util.find_spec("numba") is not None else "numpy"


class PublicNames:
    """The public names of a package and the backend behind them.

    Compiled kernels and definitions are bound at once. Numba is only bound when a kernel is first looked up, so that
    `import fastnn` never imports Numba.
    """

    def __init__(self, namespace: MutableMapping[str, Any]) -> None:
        self._namespace = namespace
        self._bound: Backend | None = None
        # A bad variable is an error now, not when it is first asked for.
        is_strict()
        instruction_set()
        _environment("FASTNN_NUMBA_CACHE", ("0", "1"))
        self._chosen = default_backend()
        if self._chosen == "numba":
            for name in KERNELS:
                namespace.pop(name, None)
        else:
            self._bind()

    def _bind(self) -> Backend:
        if self._bound is None:
            self._bound = backend(self._chosen)
            self._namespace.update({row.kernel: row.function for row in self._bound.report})
        return self._bound

    def set_backend(self, name: str) -> None:
        """Bind the public names (`fastnn.relu`, ...) to backend `name`; names imported before stay as they were."""
        chosen = backend(name)
        self._chosen, self._bound = name, None
        self._bind()
        assert self._bound is chosen

    def report(self) -> Report:
        """Who stands behind each public name, one `Binding` per kernel; print it for a table."""
        return self._bind().report

    def look_up(self, name: str) -> Any:
        """The module's `__getattr__`: bind on the first use of a kernel that is not bound yet."""
        if name in KERNELS:
            return getattr(self._bind(), name)
        raise AttributeError(f"module 'fastnn' has no attribute {name!r}")
