"""Kernels compiled ahead, and compiled code that is kept on disk; in fresh processes, where nothing is compiled yet."""

import importlib.util
import textwrap
from pathlib import Path

import pytest
from processes import answer, complaint

import fastnn

numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")

#: Calls of two families, and how many functions Numba has compiled (not loaded) until they have given the answers.
CALLS = """
import json
import numpy as np
import numba.core.event as event
import fastnn

compiled = event.RecordingListener()
event.register("numba:compile", compiled)
numba = fastnn.backend("numba")

def count():
    return len({str(record.data["dispatcher"]) for _, record in compiled.buffer})

def results():
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    for dtype in (np.float32, np.float64):
        y = x.astype(dtype)
        yield from (numba.tanh(y), numba.tanh(y, out=np.empty_like(y)))
        yield from (numba.mse_loss(y, -y), numba.mse_loss(y, -y, reduction="none"))

def answers():
    return [np.asarray(result).tolist() for result in results()]
"""
KERNELS = ["tanh", "mse_loss"]


@numba
def test_no_call_compiles_after_the_warmup():
    said = answer(f"""
{CALLS}
fastnn.warmup("numba", kernels={KERNELS})
before = count()
answers()
print(json.dumps([before, count()]))
""")
    assert said[0] > 0
    assert said[1] == said[0]


def test_other_backends_have_nothing_to_compile():
    assert (
        answer("""
import json, sys, fastnn
fastnn.warmup("numpy")
print(json.dumps("numba" in sys.modules))
""")
        is False
    )


def test_the_default_is_the_backend_of_the_public_names():
    code = "import json, fastnn; fastnn.warmup(); print(json.dumps(fastnn.report()[0].backend))"
    assert answer(code, FASTNN_BACKEND="numpy") == "numpy"


def test_a_backend_that_does_not_exist():
    with pytest.raises(ValueError, match="'torch'; expected one of cython, numba, numpy"):
        fastnn.warmup("torch")


def test_a_kernel_that_does_not_exist():
    with pytest.raises(ValueError, match=r"^warmup: kernels has 'reul'; expected names of kernels"):
        fastnn.warmup("numpy", kernels=["relu", "reul"])


CACHED = f"{CALLS}print(json.dumps([answers(), count()]))"


@numba
def test_code_is_kept_on_disk_where_that_is_asked_for(tmp_path):
    fresh, compiled = answer(CACHED, NUMBA_CACHE_DIR=str(tmp_path))
    assert not list(tmp_path.iterdir())
    keeping = {"FASTNN_NUMBA_CACHE": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    first, compiled_first = answer(CACHED, **keeping)
    kept = _files(tmp_path)
    again, compiled_again = answer(CACHED, **keeping)
    assert fresh == first == again
    assert kept
    assert _files(tmp_path) == kept
    assert compiled == compiled_first
    assert compiled_again == 0


@numba
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_a_warning(tmp_path, suffix):
    keeping = {"FASTNN_NUMBA_CACHE": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    expected, _ = answer(CACHED, **keeping)
    for name in _files(tmp_path):
        if name.endswith(suffix):
            (tmp_path / name).write_bytes(b"nonsense")
    assert _warned(**keeping) == [expected, True]


FULL_DISK = """
def save(*arguments):
    raise OSError("No space left on device")
caching.IndexDataCacheFile.save = save
"""
NO_FOLDER = "caching.CacheImpl._locator_classes = []"


@numba
@pytest.mark.parametrize("fault", [FULL_DISK, NO_FOLDER])
def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, fault):
    keeping = {"FASTNN_NUMBA_CACHE": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    expected, _ = answer(CACHED)
    assert _warned(f"import numba.core.caching as caching\n{fault}", **keeping) == [expected, True]


def test_an_unknown_value_of_the_variable():
    message = complaint("import fastnn", FASTNN_NUMBA_CACHE="always")
    assert message == "ValueError: FASTNN_NUMBA_CACHE is 'always'; expected one of 0, 1"


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _warned(fault="", **environment):
    """The answers, and whether there was a warning, and each was about the cache."""
    return answer(
        f"""
import warnings
{fault}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
{textwrap.indent(CALLS, "    ")}
    given = answers()
said = [str(warning.message) for warning in caught]
print(json.dumps([given, bool(said) and all("Numba's cache is not used" in text for text in said)]))
""",
        **environment,
    )
