"""Build of the compiled kernels: each `.pyx` is translated once and compiled once per instruction set.

Everything else about the distribution stands in pyproject.toml. The environment variable FASTNN_BUILD chooses what a
compiler that does not work means: "auto" (default) installs pure Python and notes why, "require" is an error, and
"never" does not try (this makes the py3-none-any wheel). FASTNN_CFLAGS holds more options for compiler and linker; they
come last, so they win.
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODES = ("auto", "require", "never")
ROOT = Path(__file__).parent
SOURCES = Path("fastnn_ext", "pyx")
TRANSLATED = Path("build", "c")
BASELINE_ONLY = ("cpu", "threads")

MODE = os.environ.get("FASTNN_BUILD") or "auto"
if MODE not in MODES:
    raise SystemExit(f"FASTNN_BUILD is {MODE!r}; expected one of {', '.join(MODES)}")
MSVC = sys.platform == "win32"
# The speed-ups of -ffast-math that change neither results nor the floating-point state of the process.
FLAGS = (
    ["/O2", "/std:c11"]
    if MSVC
    else ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fvisibility=hidden"]
)
MORE_FLAGS = shlex.split(os.environ.get("FASTNN_CFLAGS", ""))


def extensions() -> list[Extension]:
    """One extension per source and instruction set; none where nothing is to be compiled."""
    isas = runpy.run_path(str(ROOT / "fastnn_ext" / "isa.py"))["isas_of"]()
    if MODE == "never" or not isas:
        return []
    import numpy as np
    from Cython.Build import cythonize

    translated = cythonize(
        [Extension(f"fastnn_ext.pyx.{path.stem}", [str(path)]) for path in sorted(SOURCES.glob("*.pyx"))],
        include_path=[str(SOURCES)],
        build_dir=str(TRANSLATED),
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
        quiet=True,
    )
    return [
        Extension(
            f"fastnn_ext.{isa.name}.{stem}",
            [own_copy(Path(module.sources[0]), isa.name)],
            include_dirs=[np.get_include(), str(SOURCES)],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=[*FLAGS, *(isa.msvc_flags if MSVC else isa.flags), *MORE_FLAGS],
            extra_link_args=MORE_FLAGS,
            depends=[str(path) for path in SOURCES.rglob("*.[hp]*")],
        )
        for module in translated
        for stem in [module.name.rpartition(".")[2]]
        for isa in isas
        if isa.name == "baseline" or stem not in BASELINE_ONLY
    ]


def own_copy(source: Path, isa: str) -> str:
    """`source` copied to a folder of `isa`, so that parallel builds of one source have objects of their own."""
    target = TRANSLATED / isa / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)
    return str(target)


class BuildKernels(build_ext):
    """Compiles in parallel, and in mode "auto" survives a compiler that does not work."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        self.failures: dict[str, str] = {}
        super().run()
        self.write_note()

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception:
            if MODE == "require":
                raise
            compiler = " ".join(getattr(self.compiler, "compiler_so", None) or ["the compiler"]).split(" -")[
                0
            ]
            self.failures[ext.name] = f"{compiler!r} failed on {Path(ext.sources[0]).name}"

    def copy_extensions_to_source(self) -> None:
        self.extensions = [ext for ext in self.extensions if ext.name not in self.failures]
        super().copy_extensions_to_source()

    def write_note(self) -> None:
        """Leave beside the package why something is not compiled, for `python -m fastnn info`."""
        package = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
        note = package / "fastnn_ext" / "build_info.json"
        note.unlink(missing_ok=True)
        if self.failures:
            first = next(iter(self.failures.values()))
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"error": first, "failed": sorted(self.failures)}), encoding="utf-8")
            self.warn(f"fastnn is installed without {len(self.failures)} compiled modules: {first}")


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
