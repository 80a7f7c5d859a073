"""`python -m fastnn info` prints what a bug report needs."""

import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn._contract import KERNELS


def command(*arguments):
    line = [sys.executable, "-W", "error", "-m", "fastnn", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def info():
    finished = command("info")
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr
    return finished.stdout


def test_info_says(info):
    for word in (fastnn.__version__, np.__version__, sys.version.split()[0]):
        assert word in info
    for title in ("processor", "instruction set", "compiler", "threads", "environment"):
        assert f"\n{title} " in info


def test_info_has_every_kernel(info):
    for kernel in KERNELS:
        assert f"\n{kernel} " in info


def test_info_has_every_backend(info):
    for name in ("cython", "numba", "numpy"):
        assert f"backend {name}" in info


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_other_words_are_refused(arguments):
    finished = command(*arguments)
    assert finished.returncode == 2
    assert "info" in finished.stderr
