"""All pictures and tables of docs/gallery.md and docs/notes.md, made anew by the scripts beside this one.

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
#: Those without pictures, which docs/notes.md shows.
TEXTS = {"worked_examples": {"markdown": True}, "logic_gates": {}, "sequence": {}, "lenet": {}}
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


def with_output(page: str, script: str, printed: str) -> str:
    """The page with what a script printed between its two markers; what is not Markdown, as it is."""
    begin, end = f"<!-- {script}:begin -->", f"<!-- {script}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"gallery: the page has not the markers {begin} and {end}, once each")
    text = printed.strip()
    if not text.startswith(("|", "#")):
        text = f"```\n{text}\n```"
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def printed_by(script: str, *arguments: str, **options: bool) -> str:
    """What a script prints."""
    print(f"{script} ...")
    with redirect_stdout(StringIO()) as printed:
        runpy.run_path(str(HERE / f"{script}.py"))["main"](*arguments, **options)
    return printed.getvalue()


def gallery(docs: Path) -> None:
    """Make the pictures and docs/gallery.md anew."""
    page, folder = docs / "gallery.md", docs / "pictures"
    folder.mkdir(exist_ok=True)
    text = page.read_text(encoding="utf-8")
    for script in SCRIPTS:
        text = with_output(text, script, printed_by(script, str(folder)))
    for picture in folder.glob("*.png"):
        shrink(picture)
    page.write_text(text, encoding="utf-8")


def notes(docs: Path) -> None:
    """Make docs/notes.md anew."""
    page = docs / "notes.md"
    text = page.read_text(encoding="utf-8")
    for script, options in TEXTS.items():
        text = with_output(text, script, printed_by(script, **options))
    page.write_text(text, encoding="utf-8")


def main(docs: str | Path = DOCS) -> None:
    gallery(Path(docs))
    notes(Path(docs))


if __name__ == "__main__":
    main(*sys.argv[1:])
