"""Files: what is written is there as a whole or not at all, and what cannot be read is one kind of error."""

from __future__ import annotations

import os
from contextlib import suppress


class FormatError(ValueError):
    """A file that is not what it should be; the message says what is wrong with it."""


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`; where that is interrupted, what was there before is still there."""
    temporary = f"{os.fspath(path)}.{os.urandom(4).hex()}.part"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
