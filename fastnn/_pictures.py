"""Pictures on disk, whole or not at all."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastnn.io import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The formats, which are also the ends of names.
FORMATS = (".png", ".svg", ".pdf")


def are_possible() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def save(axes: Axes, path: Path) -> None:
    """Write the figure that `axes` is on, in the format that the end of the name says."""
    picture = io.BytesIO()
    axes.figure.savefig(picture, format=path.suffix[1:], dpi=150)  # type: ignore[union-attr]
    write_whole(path, picture.getvalue())
