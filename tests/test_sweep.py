"""README's picture over sizes: what it is drawn from, and that it can be drawn again."""

import json
from pathlib import Path

import pytest

from fastnn.bench.worker import load_script

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")
ROOT = Path(__file__).resolve().parent.parent
sweep = load_script("sweep")


def test_every_backend_is_there_at_every_size():
    text = sweep.KEPT.read_text(encoding="utf-8")
    kept = json.loads(text)
    assert kept["seconds"].keys() == sweep.EXPRESSIONS.keys()
    for contenders in kept["seconds"].values():
        assert {"numpy", "cython", "numba"} <= contenders.keys()
        for points in contenders.values():
            assert tuple(size for size, _ in points) == sweep.SIZES
            assert all(seconds > 0 for _, seconds in points)
    assert sweep.written(kept) == text


def test_the_picture_is_drawn_from_what_is_kept(tmp_path):
    kept = json.loads(sweep.KEPT.read_text(encoding="utf-8"))
    picture = tmp_path / "sweep.svg"
    sweep.draw(kept, picture)
    drawn, shown = picture.read_text(encoding="utf-8"), sweep.PICTURE.read_text(encoding="utf-8")
    for word in (
        *kept["seconds"]["relu"],
        kept["measured"],
        kept["machine"]["processor"],
        "elements a second",
    ):
        assert word in drawn
        assert word in shown


def test_readme_shows_the_picture():
    assert "(docs/sweep.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
