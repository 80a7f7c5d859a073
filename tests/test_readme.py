"""The examples of the README run, one after the other as a reader runs them."""

import re
from pathlib import Path

import fastnn

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S))
    assert blocks
    chosen, namespace = fastnn.report()[0].backend, {"__name__": "example"}
    try:
        for block in blocks:
            lines_before = text.count("\n", 0, block.start(1))
            exec(compile("\n" * lines_before + block[1], str(README), "exec"), namespace)
    finally:
        fastnn.set_backend(chosen)
