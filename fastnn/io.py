"""The safetensors format, read and written with NumPy alone.

A file is the length of its header (8 bytes, little-endian), the header (JSON: name, dtype, shape and place of each
tensor, and strings in `__metadata__`), and the tensors' bytes without gaps. Nothing in it is ever executed, and
nothing is allocated that the file does not hold.

References
----------
https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    **{f"{kind}{8 * size}": np.dtype(f"<{letter}{size}") for kind, letter in (("I", "i"), ("U", "u"), ("F", "f"))
       for size in (2, 4, 8)},
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: The format's own limit.
MAX_HEADER = 100_000_000


class FormatError(ValueError):
    """A file that is not what it should be; the message says what is wrong with it."""


class Entry(NamedTuple):
    """Where a tensor lies in the bytes after the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file as a whole or not at all: a temporary file is renamed to `path` when it is on disk."""
    import json  # here, for it takes a tenth of the time of importing fastnn

    arrays = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()
    }
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": tensors[name].shape,
            "data_offsets": (begin, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_whole(
        path, [len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays.values())]
    )


def write_whole(path: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
    """Write `parts` to `path`; where that is interrupted, what was there before is still there."""
    temporary = f"{os.fspath(path)}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


class SafeTensors:
    """An open safetensors file: its header, checked, and its tensors when they are asked for.

    Attributes
    ----------
    entries : dict of str to Entry
        What tensors there are.
    metadata : dict of str to str
        What else the header says.

    Raises
    ------
    FormatError
        Where the file is not whole and right: header, names, dtypes, shapes, offsets, overlaps, gaps, length.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                self._refuse(f"its header would take {length} bytes of {size}; is it a safetensors file?")
            header = self._parsed(file.read(length))
        self._start = 8 + length
        self.metadata = self._checked_metadata(header.pop("__metadata__", {}))
        self.entries = {name: self._entry(name, said) for name, said in header.items()}
        self._check_places(size - self._start)

    def read(self) -> dict[str, Array]:
        """All tensors, in native byte order."""
        with open(self._path, "rb") as file:
            return {name: self._read(file, entry) for name, entry in self.entries.items()}

    def _read(self, file: Any, entry: Entry) -> Array:
        file.seek(self._start + entry.begin)
        content = file.read(entry.end - entry.begin)
        if len(content) != entry.end - entry.begin:
            self._refuse("it became shorter while it was read")
        stored = np.frombuffer(content, entry.dtype).reshape(entry.shape)
        return stored.astype(entry.dtype.newbyteorder("="))

    def _parsed(self, text: bytes) -> dict[str, Any]:
        import json

        try:
            header = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            self._refuse(f"its header cannot be read ({error})")
        if not isinstance(header, dict):
            self._refuse("its header is no JSON object")
        return header

    def _checked_metadata(self, metadata: Any) -> dict[str, str]:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            self._refuse("its metadata are not strings")
        return metadata

    def _entry(self, name: str, said: Any) -> Entry:
        if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
            self._refuse(f"tensor {name!r} has not dtype, shape and data_offsets")
        dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            self._refuse(f"tensor {name!r} has dtype {dtype!r}; known are {', '.join(DTYPES)}")
        if not (_are_sizes(shape) and len(shape) <= 32 and _are_sizes(offsets) and len(offsets) == 2):
            self._refuse(f"tensor {name!r} has shape {shape!r} and data_offsets {offsets!r}")
        entry = Entry(DTYPES[dtype], tuple(shape), *offsets)
        if entry.end - entry.begin != math.prod(entry.shape) * entry.dtype.itemsize:
            self._refuse(f"tensor {name!r} of shape {shape} and dtype {dtype} has {offsets} as data_offsets")
        return entry

    def _check_places(self, size: int) -> None:
        """Tensors fill the rest of the file, one after the other."""
        end = 0
        for name, entry in sorted(self.entries.items(), key=lambda item: item[1][2:]):
            if entry.begin != end:
                self._refuse(
                    f"tensor {name!r} begins at {entry.begin}; expected {end}, where the one before ends"
                )
            end = entry.end
        if end != size:
            self._refuse(f"its tensors take {end} bytes, but it has {size}; is it truncated?")

    def _refuse(self, why: str) -> NoReturn:
        raise FormatError(f"{os.fspath(self._path)}: {why}")


def _are_sizes(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < 2**62 for number in numbers
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result
