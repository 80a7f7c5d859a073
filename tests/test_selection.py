"""Who stands behind a name: asked of fresh processes, since the choice is made once, at import.

Each question is a few lines of Python; it ends by printing JSON or by raising.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from backends import runnable_isas
from processes import answer, complaint

import fastnn
import fastnn_ext
from fastnn._contract import KERNELS

ISAS = [isa for isa in runnable_isas() if importlib.util.find_spec(f"fastnn_ext.{isa}.activations")]
HAS_NUMBA = importlib.util.find_spec("numba") is not None
BACKENDS = [*(["cython"] if ISAS else []), *(["numba"] if HAS_NUMBA else []), "numpy"]
PACKAGES = {"cython": f"fastnn_ext.{ISAS[0] if ISAS else ''}", "numba": "fastnn_ext.njit", "numpy": "fastnn"}

compiled = pytest.mark.skipif(not ISAS, reason="no kernel is compiled")
numba = pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")

REPORT = """
import json, sys, fastnn
rows = [[row.kernel, row.backend, row.module, row.reason] for row in fastnn.report()]
print(json.dumps({"rows": rows, "loaded": sorted(sys.modules)}))
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_a_forced_backend_is_behind_every_name(name):
    said = answer(REPORT, FASTNN_BACKEND=name, FASTNN_STRICT="1")
    assert [row[0] for row in said["rows"]] == list(KERNELS)
    for kernel, backend, module, reason in said["rows"]:
        assert (backend, module, reason) == (name, f"{PACKAGES[name]}.{KERNELS[kernel].family}", "")
        assert module in said["loaded"]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_public_names_are_those_of_the_report(name):
    same = "[getattr(fastnn, row.kernel) is row.function for row in fastnn.report()]"
    code = f"import json, fastnn; print(json.dumps({same}))"
    assert answer(code, FASTNN_BACKEND=name) == [True] * len(KERNELS)


def test_the_default_is_the_first_backend_there_is():
    said = answer(REPORT, FASTNN_STRICT="1")
    assert {row[1] for row in said["rows"]} == {BACKENDS[0]}


@pytest.mark.parametrize(
    ("variable", "value", "known"),
    [
        ("FASTNN_BACKEND", "torch", "cython, numba, numpy"),
        ("FASTNN_ISA", "sse9", "avx512, avx2, baseline"),
        ("FASTNN_STRICT", "maybe", "0, 1"),
    ],
)
def test_an_unknown_value_is_an_error_that_lists_the_known_ones(variable, value, known):
    message = complaint("import fastnn", **{variable: value})
    assert message == f"ValueError: {variable} is {value!r}; expected one of {known}"


@compiled
@pytest.mark.parametrize("isa", ISAS)
def test_an_instruction_set_can_be_chosen(isa):
    said = answer(REPORT, FASTNN_ISA=isa, FASTNN_STRICT="1")
    assert {row[2].rpartition(".")[0] for row in said["rows"]} == {f"fastnn_ext.{isa}"}
    others = tuple(f"fastnn_ext.{other}." for other in ISAS if other != isa)
    for_all = {"fastnn_ext.baseline.cpu", "fastnn_ext.baseline.threads"}
    assert {name for name in said["loaded"] if name.startswith(others)} <= for_all


@compiled
def test_an_instruction_set_that_the_processor_lacks_is_never_imported():
    said = answer(f"import fastnn_ext.baseline.cpu as cpu; cpu.supports = lambda feature: False\n{REPORT}")
    assert {row[2].rpartition(".")[0] for row in said["rows"]} == {"fastnn_ext.baseline"}
    better = tuple(f"fastnn_ext.{isa}." for isa in ISAS if isa != "baseline")
    assert not [name for name in said["loaded"] if name.startswith(better)]


@compiled
def test_an_instruction_set_that_the_processor_lacks_cannot_be_forced():
    code = f"import fastnn_ext.baseline.cpu as cpu; cpu.supports = lambda feature: False\n{REPORT}"
    said = answer(code, FASTNN_ISA=ISAS[0])
    assert {row[2].rpartition(".")[0] for row in said["rows"]} == {"fastnn_ext.baseline"}


LACKING = f"""
import sys, types
sys.modules["{PACKAGES[BACKENDS[0]]}.pooling"] = types.ModuleType("{PACKAGES[BACKENDS[0]]}.pooling")
"""
without_numpy_alone = pytest.mark.skipif(BACKENDS == ["numpy"], reason="NumPy has nothing to fall back on")


@without_numpy_alone
def test_a_missing_kernel_falls_back_and_the_report_says_why():
    said = answer(LACKING + REPORT)
    for kernel, backend, module, reason in said["rows"]:
        if KERNELS[kernel].family == "pooling":
            assert (backend, module) == ("numpy", "fastnn.pooling")
            assert reason.startswith(f"{BACKENDS[0]}: ")
            assert kernel in reason
        else:
            assert (backend, reason) == (BACKENDS[0], "")


@without_numpy_alone
def test_a_missing_kernel_is_an_error_in_strict_mode():
    message = complaint(LACKING + REPORT, FASTNN_STRICT="1")
    assert message.startswith("fastnn._select.BackendError: no backend has max_pool2d: ")


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    """The packages as a pure-Python install has them."""
    root = tmp_path_factory.mktemp("pure")
    for package in (fastnn, fastnn_ext):
        ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "build_info.json")
        shutil.copytree(Path(package.__file__).parent, root / package.__name__, ignore=ignored)
    return str(root)


NO_NUMBA = "import sys; sys.modules['numba'] = None\n"


def test_nothing_compiled_and_no_numba_is_numpy(pure):
    said = answer(NO_NUMBA + REPORT, PYTHONPATH=pure, FASTNN_STRICT="1")
    assert {row[1] for row in said["rows"]} == {"numpy"}


def test_nothing_compiled_has_no_threads_but_checks_their_number(pure):
    code = """
import json, threading, fastnn
fastnn.set_num_threads(3)
seen = [fastnn.get_num_threads()]
with fastnn.num_threads(2):
    seen.append(fastnn.get_num_threads())
    other = threading.Thread(target=lambda: seen.append(fastnn.get_num_threads()))
    other.start()
    other.join()
print(json.dumps([*seen, fastnn.get_num_threads()]))
"""
    assert answer(NO_NUMBA + code, PYTHONPATH=pure) == [3, 2, 3, 3]
    message = complaint(NO_NUMBA + "import fastnn; fastnn.set_num_threads(0)", PYTHONPATH=pure)
    assert message == "ValueError: set_num_threads: n is 0; expected an int from 1 to 1024"
    message = complaint(NO_NUMBA + "import fastnn", PYTHONPATH=pure, FASTNN_NUM_THREADS="many")
    assert message == "ValueError: FASTNN_NUM_THREADS is 'many'; expected an int from 1 to 1024"


@numba
def test_nothing_compiled_is_numba_where_it_is_installed(pure):
    said = answer(REPORT, PYTHONPATH=pure, FASTNN_STRICT="1")
    assert {row[1] for row in said["rows"]} == {"numba"}


def test_nothing_compiled_is_an_error_where_cython_is_asked_for(pure):
    message = complaint("import fastnn", PYTHONPATH=pure, FASTNN_BACKEND="cython")
    assert message.startswith("fastnn._select.BackendError: no compiled kernels: nothing is compiled: ")


def test_the_build_says_why_nothing_is_compiled(pure):
    note = Path(pure, "fastnn_ext", "build_info.json")
    note.write_text(json.dumps({"error": "command 'false' failed"}), encoding="utf-8")
    try:
        message = complaint("import fastnn", PYTHONPATH=pure, FASTNN_BACKEND="cython")
    finally:
        note.unlink()
    assert "command 'false' failed" in message


def test_no_numba_is_an_error_where_it_is_asked_for():
    message = complaint(f"{NO_NUMBA}import fastnn; fastnn.report()", FASTNN_BACKEND="numba")
    assert message.startswith("fastnn._select.BackendError: numba cannot be imported: ")


def test_backends_that_are_not_there_are_not_available(pure):
    code = f"{NO_NUMBA}import json, fastnn; print(json.dumps(fastnn.available_backends()))"
    assert answer(code, PYTHONPATH=pure) == ["numpy"]


def test_available_backends():
    assert list(fastnn.available_backends()) == BACKENDS


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_a_namespace_of_all_kernels(name):
    backend = fastnn.backend(name)
    assert list(backend) == list(KERNELS)
    assert fastnn.backend(name) is backend
    assert repr(name) in repr(backend)
    assert all(getattr(backend, row.kernel) is row.function for row in backend.report)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = backend.nonsense


def test_a_backend_that_does_not_exist():
    for ask in (fastnn.backend, fastnn.set_backend):
        with pytest.raises(ValueError, match="'torch'; expected one of cython, numba, numpy"):
            ask("torch")


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = fastnn.nonsense


@pytest.mark.parametrize("name", BACKENDS)
def test_set_backend_rebinds_the_public_names(name):
    said = answer(
        f"""
import json, fastnn
fastnn.set_backend("{name}")
chosen = fastnn.backend("{name}")
print(json.dumps([getattr(fastnn, kernel) is getattr(chosen, kernel) for kernel in chosen]))
""",
        FASTNN_STRICT="1",
    )
    assert said == [True] * len(KERNELS)


def test_the_report_prints_as_a_table():
    lines = str(fastnn.report()).splitlines()
    assert [line.split()[0] for line in lines] == list(KERNELS)


IMPORT_COST = """
import json, sys, time
import numpy
before, start = set(sys.modules), time.process_time()
import fastnn
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))
"""


def test_import_brings_nothing_heavy_and_takes_little_time(tmp_path):
    """The promise is 25 ms on a quiet machine; four times that is allowed on one that runs tests."""
    compiled_once = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    times, loaded = zip(*(answer(IMPORT_COST, **compiled_once) for _ in range(4)), strict=True)
    foreign = {name.partition(".")[0] for name in loaded[0]} - sys.stdlib_module_names
    cython = {name for name in foreign if name.startswith(("_cython_", "cython_runtime"))}
    assert foreign - cython <= {"fastnn", "fastnn_ext", "numpy"}
    assert min(times) < 0.1
