"""Every module can be imported alone, and imports go down only."""

import ast
import importlib.util
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from backends import runnable_isas

import fastnn
import fastnn_ext
from fastnn._contract import KERNELS
from fastnn_ext.isa import ISAS

ROOTS = {package.__name__: Path(package.__file__).parent for package in (fastnn, fastnn_ext)}
FAMILIES = {kernel.family for kernel in KERNELS.values()}
NUMPY = ("numpy",)
AT_RUN_TIME = "a name made at run time"
PUBLIC_NAMES = "fastnn itself, for its public names"
FAMILY = (*NUMPY, "fastnn._contract", "fastnn_ext.checks", *(f"fastnn.{family}" for family in FAMILIES))

#: What a module may import besides the standard library; the longest name that fits holds.
MAY_IMPORT = {
    "fastnn": ("fastnn", "numpy", "sklearn", "tqdm", AT_RUN_TIME),
    "fastnn._contract": NUMPY,
    "fastnn._described": (),
    "fastnn._pictures": ("fastnn.io", "matplotlib"),
    "fastnn._pack": (*NUMPY, "fastnn_ext.checks"),
    "fastnn._select": ("fastnn._contract", "fastnn_ext", "numba", AT_RUN_TIME),
    "fastnn._trace": (*NUMPY, "fastnn.nn", "fastnn.optim"),
    "fastnn._version": (),
    "fastnn._warmup": ("fastnn", "fastnn_ext.checks"),
    "fastnn.testing": (*NUMPY, "fastnn._contract"),
    "fastnn.cli": (*NUMPY, "fastnn", "fastnn_ext.checks", "tqdm"),
    "fastnn.bench": (
        *NUMPY,
        PUBLIC_NAMES,
        *("fastnn._contract", "fastnn._select", "fastnn.bench", "fastnn.io", "fastnn.testing"),
        *("pytest_benchmark", "threadpoolctl", "tqdm", "itables", "jinja2", "markupsafe", "plotly"),
        AT_RUN_TIME,  # scripts of benchmarks/
    ),
    "fastnn.data": (*NUMPY, "fastnn.init", "fastnn.io", "fastnn_ext.checks", "sklearn"),
    "fastnn.init": NUMPY,
    "fastnn.io": (),
    "fastnn.train": (
        *NUMPY,
        *("fastnn.data", "fastnn.init", "fastnn.nn", "fastnn.optim", "fastnn_ext.checks", "tqdm"),
    ),
    "fastnn.plot": (
        *NUMPY,
        PUBLIC_NAMES,
        *("fastnn._contract", "fastnn.nn", "fastnn.train", "fastnn_ext.checks", "matplotlib"),
    ),
    "fastnn.optim": (*NUMPY, PUBLIC_NAMES, "fastnn.nn", "fastnn_ext.checks"),
    "fastnn.nn": (
        *NUMPY,
        PUBLIC_NAMES,
        *("fastnn._contract", "fastnn._described", "fastnn.init", "fastnn.io", "fastnn.nn"),
        *("fastnn_ext.checks", "safetensors"),
    ),
    **{f"fastnn.{family}": FAMILY for family in FAMILIES},
    "fastnn_ext": (),
    "fastnn_ext.checks": (*NUMPY, "fastnn_ext.checks"),
    "fastnn_ext.njit": (*NUMPY, "numba", "llvmlite", "fastnn_ext.checks", "fastnn_ext.njit"),
}


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def python_modules():
    """Name and path of each Python source."""
    for name, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join([name, *(part for part in parts if part != "__init__")]), path


def compiled_modules():
    """The modules that are built for an instruction set that this machine can run."""
    for isa in runnable_isas():
        for path in sorted((ROOTS["fastnn_ext"] / isa).iterdir()):
            if path.name.endswith(tuple(EXTENSION_SUFFIXES)):
                yield f"fastnn_ext.{isa}.{path.name.partition('.')[0]}"


def imports_of(module):
    """The dotted names that a Python module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = ".".join(module.split(".")[: -node.level]) if node.level else None
            origin = ".".join(filter(None, (parents, node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            argument = node.args[0]
            yield argument.value if isinstance(argument, ast.Constant) else AT_RUN_TIME


MODULES = dict(python_modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    rule = max((name for name in MAY_IMPORT if within(module, name)), key=len)
    for name in imports_of(module):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            allowed = MAY_IMPORT[rule]
            is_public = name == "fastnn" and PUBLIC_NAMES in allowed
            assert is_public or any(within(name, one) for one in allowed), f"{module} imports {name}"


def test_only_the_selector_reaches_compiled_modules():
    folders = tuple(f"fastnn_ext.{isa.name}" for isa in ISAS)
    for module in MODULES.keys() - {"fastnn._select"}:
        assert not [name for name in imports_of(module) if name.startswith(folders)], module


def test_the_rules_are_not_idle():
    """An import that goes up would be seen, and imports are found."""
    assert not any(within("fastnn.relu", allowed) for allowed in MAY_IMPORT["fastnn_ext.checks"])
    assert set(FAMILY) - {"numpy"} <= MODULES.keys()
    assert "fastnn" in imports_of("fastnn.nn.affine")
    assert not any(within("fastnn.linear", allowed) for allowed in MAY_IMPORT["fastnn.nn"])
    assert all("fastnn._contract.kernel" in imports_of(f"fastnn.{family}") for family in FAMILIES)


def test_compiled_sources_import_checks_and_neighbours_only():
    """A neighbour is a module of the same instruction set, under its relative name; all share the pool of threads."""
    shared = ("fastnn_ext.checks", "fastnn_ext.baseline.threads")
    for path in sorted((ROOTS["fastnn_ext"] / "pyx").rglob("*.p[yx][xd]")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^\s*(?:from\s+(\S+)\s+)?import\s+(\S+)", text, re.M):
            name = f"{match[1]}.{match[2]}" if match[1] else match[2]
            is_ours = within(name, "fastnn_ext") or within(name, "fastnn")
            allowed = name.startswith(".") or any(within(name, one) for one in shared)
            assert allowed or not is_ours, f"{path.name} imports {name}"


IMPORT_EACH_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.partition(".")[0] in ("fastnn", "fastnn_ext")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException as error:
        raise SystemExit(f"{name}: {error!r}")
"""


def import_each_alone(modules):
    line = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *modules]
    finished = subprocess.run(line, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stdout + finished.stderr


def test_every_python_module_can_be_imported_alone():
    import_each_alone(name for name in MODULES if not within(name, "fastnn_ext.njit"))


def test_every_compiled_module_can_be_imported_alone():
    import_each_alone(compiled_modules())


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
def test_every_numba_module_can_be_imported_alone():
    import_each_alone(name for name in MODULES if within(name, "fastnn_ext.njit"))
