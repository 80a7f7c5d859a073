"""All pictures and tables of docs/gallery.md, made anew by the scripts beside this one.

python examples/gallery.py    # or: make gallery
"""

from __future__ import annotations

import re
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
SCRIPTS = (
    *("activations", "relu_sums", "watch", "apples_and_tomatoes", "filters"),
    *("initialisation", "optimizers", "batch_sizes"),
)
#: With a palette of this size a picture takes less than half of the bytes.
COLOURS = 256


def shrink(picture: Path) -> None:
    """Write a picture again with a palette."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    small.save(picture, optimize=True)


def with_table(page: str, script: str, table: str) -> str:
    """The page with a new table between the two markers of a script."""
    begin, end = f"<!-- {script}:begin -->", f"<!-- {script}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"gallery: the page has not the markers {begin} and {end}, once each")
    return pattern.sub(lambda _: f"{begin}\n\n{table.strip()}\n\n{end}", page)


def main(docs: str | Path = DOCS) -> None:
    page, folder = Path(docs) / "gallery.md", Path(docs) / "pictures"
    folder.mkdir(exist_ok=True)
    text = page.read_text(encoding="utf-8")
    for script in SCRIPTS:
        print(f"{script} ...")
        with redirect_stdout(StringIO()) as printed:
            runpy.run_path(str(HERE / f"{script}.py"))["main"](str(folder))
        text = with_table(text, script, printed.getvalue())
    for picture in folder.glob("*.png"):
        shrink(picture)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
