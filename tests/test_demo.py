"""The main job: the digits network reaches its accuracy, and a disagreement of backends is told."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is the extra [demo]")

import fastnn
from fastnn import demo, train


@pytest.fixture(scope="module")
def result() -> demo.Result:
    return demo.learn(fastnn.available_backends()[0], demo.load_digits(), progress=False)


def test_digits_are_learnt(result: demo.Result) -> None:
    assert result.accuracy >= 0.98


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_pictures_are_drawn(result: demo.Result, tmp_path: Path) -> None:
    paths = demo.draw(result, tmp_path / "pictures")
    assert [path.name for path in paths] == ["loss.png", "accuracy.png", "filters.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_disagreement_is_told() -> None:
    history = train.History([{"seconds": 1.0}])
    one = demo.Result("numpy", accuracy=0.98, loss=0.04, history=history, model=demo.network())
    assert demo.disagreement([one, replace(one, backend="cython")]) == ""
    assert "losses" in demo.disagreement([one, replace(one, loss=0.1)])
    assert "accuracies" in demo.disagreement([one, replace(one, accuracy=0.9)])
    assert "| numpy | 98.00% | 0.0400 | 1.000 | 1.0x |" in demo.table([one])
