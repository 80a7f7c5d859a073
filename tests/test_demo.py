"""The main job: the digits network reaches its accuracy, and a disagreement of backends is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is the extra [demo]")

import fastnn
from fastnn import demo


def test_digits_are_learnt() -> None:
    result = demo.learn(fastnn.available_backends()[0], demo.load_digits(), progress=False)
    assert result.accuracy >= 0.98


def test_disagreement_is_told() -> None:
    one = demo.Result("numpy", accuracy=0.98, loss=0.04, seconds_per_epoch=1.0)
    assert demo.disagreement([one, replace(one, backend="cython")]) == ""
    assert "losses" in demo.disagreement([one, replace(one, loss=0.1)])
    assert "accuracies" in demo.disagreement([one, replace(one, accuracy=0.9)])
    assert "| numpy | 98.00% | 0.0400 | 1.000 | 1.0x |" in demo.table([one])
