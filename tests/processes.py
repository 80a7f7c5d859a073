"""Fresh Python processes: what is settled at import, and what forks or ends, is asked of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fastnn

#: After which a process counts as hanging, in seconds.
LIMIT = 120


def python(code, **environment):
    """Run `code` with the packages under test, or those in PYTHONPATH; not with the current directory."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FASTNN_", "OMP_"))}
    tested = {"PYTHONPATH": str(Path(fastnn.__file__).parents[1])}
    line = [sys.executable, "-P", "-W", "error", "-c", code]
    variables = clean | tested | environment
    return subprocess.run(line, capture_output=True, text=True, check=False, env=variables, timeout=LIMIT)


def answer(code, **environment):
    finished = python(code, **environment)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def complaint(code, **environment):
    finished = python(code, **environment)
    assert finished.returncode != 0, f"no error, but {finished.stdout}"
    return finished.stderr.strip().rpartition("\n")[2]
