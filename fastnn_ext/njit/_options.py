"""The options of every Numba twin, in one place.

`fastmath` allows fused multiply-add and nothing else: NaN, infinities and signed zeros stay as in NumPy.

Compiled code is not kept on disk unless `FASTNN_NUMBA_CACHE=1`. What Numba's cache lacks for a library is added
here: code is recompiled when any module of this folder has changed, not only the function's own, closures are found
again in another process, and a cache that cannot be read or written costs a warning instead of the call.
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import numba.extending
from numba import types
from numba.core.caching import FunctionCache

intrinsic: Any = numba.extending.intrinsic  # whose type hints count the typing context among the arguments

OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

_USE_CACHE = os.environ.get("FASTNN_NUMBA_CACHE", "").strip() == "1"


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit` with the options of the house; used as `@njit` or `@njit(option=...)`."""
    if function is None:
        return partial(njit, **options)
    _tell_apart(function)
    dispatcher = numba.njit(**{**OPTIONS, **options})(function)
    if _USE_CACHE:
        try:
            dispatcher._cache = _TolerantCache(function)
        except (OSError, RuntimeError) as error:  # RuntimeError: no folder that can be written
            _warn(error)
    return dispatcher


def _tell_apart(function: Callable[..., Any]) -> None:
    """Put what a closure is about into its name, by which alone machine code from the cache and other are linked."""
    contents = [cell.cell_contents for cell in function.__closure__ or ()]
    if contents:
        names = (getattr(content, "__qualname__", str(content)).rpartition(".")[2] for content in contents)
        function.__qualname__ += f"({', '.join(names)})"


@intrinsic
def widest_vectors(typing_context: Any) -> Any:
    """Let the loops of the function that calls this use the widest vectors there are.

    LLVM stops at 256 bits without it, even where there are 512; it has no effect where there are not.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # An attribute that llvmlite does not know, which its own `add` would refuse.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


class _TolerantCache(FunctionCache):
    """Numba's cache of one function, made to fail softly and to know the function's neighbours."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file can raise anything from unpickling
            _warn(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or a damaged index
            _warn(error)

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), _sources_digest()


@cache
def _sources_digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _warn(error: Exception) -> None:
    warnings.warn(f"fastnn: Numba's cache is not used: {error}", RuntimeWarning, stacklevel=3)
