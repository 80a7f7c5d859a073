# The two commands a fresh machine needs are `make demo` and `make test`; both make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types bench bench-rivals clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Installed again whenever a source that is compiled, or the metadata, is newer.
SOURCES := pyproject.toml setup.py fastnn_ext/isa.py $(shell find fastnn_ext/pyx -type f)

$(VENV)/demo.stamp: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(VENV)/test.stamp: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[test,demo]"
	touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/python -m fastnn demo

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

# The compiled kernels must be there: a build that fell back to pure Python is a failure here, not a skip.
test: export FASTNN_BUILD = require
test: export FASTNN_TEST_BACKENDS = cython,numba,numpy
test: lint types
	$(BIN)/python -m pytest

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/run.py

# With which other libraries is up to you: those that are installed in .venv take part.
bench-rivals: $(VENV)/test.stamp
	$(BIN)/python benchmarks/rivals.py --threads 1
	$(BIN)/python benchmarks/rivals.py --threads 2

clean:
	rm -rf $(VENV) build dist *.egg-info
	find fastnn_ext -name '*.so' -delete
