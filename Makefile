# The two commands a fresh machine needs are `make demo` and `make test`; both make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-asan test-aarch64 lint types bench bench-rivals gallery clean

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

# The compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer (GCC, Linux), in a build of their own.
# Python is not instrumented: the runtime must be loaded before it, and what it keeps to its end is not leaked by us.
# Left out are commands, pages and pictures; billions of elements, which would take too long; Ctrl-C, not noticed as soon
# in code that is so much slower; the size of the workspace, to which guards are added; and forks while other threads
# compute, whose children wait for ever for a lock of the sanitizer's own allocator.
ASAN := $(CURDIR)/build/asan
ASAN_FLAGS := -O1 -g1 -Wno-maybe-uninitialized -fsanitize=address,undefined -fno-sanitize-recover=undefined
ASAN_OTHERS := bench bench_page cli demo examples gallery plot readme report sweep torch warmup
ASAN_TESTS := $(filter-out $(ASAN_OTHERS:%=tests/test_%.py),$(wildcard tests/test_*.py))
ASAN_LEFT_OUT := more_elements or control_c or workspace or another_thread_computes

test-asan: export OPENBLAS_NUM_THREADS = 1
test-asan: export ASAN_OPTIONS = detect_leaks=0:allocator_may_return_null=1
test-asan: export UBSAN_OPTIONS = print_stacktrace=1
test-asan: export FASTNN_BUILD = require
test-asan: $(VENV)/test.stamp
	FASTNN_CFLAGS="$(ASAN_FLAGS)" $(BIN)/python setup.py --quiet build --build-lib $(ASAN)/lib --build-temp $(ASAN)/temp
	LD_PRELOAD=$$(ldd $(ASAN)/lib/fastnn_ext/baseline/cpu.*.so | awk '/libasan/ { print $$3 }') PYTHONPATH=$(ASAN)/lib \
	$(BIN)/python -P -m pytest -p no:cacheprovider --backend=cython -k 'not ($(ASAN_LEFT_OUT))' \
	$(ASAN_TESTS)

# On another machine, in emulation: Debian with gcc-aarch64-linux-gnu and qemu-user.
test-aarch64: $(VENV)/test.stamp
	tests/aarch64.sh $(BIN)/python build/aarch64

bench: $(VENV)/test.stamp
	$(BIN)/python -m fastnn bench
	$(BIN)/python benchmarks/report.py .benchmarks/latest.json --full docs/benchmarks.md

gallery: $(VENV)/test.stamp
	$(BIN)/python examples/gallery.py

# With which other libraries is up to you: those that are installed in .venv take part.
bench-rivals: $(VENV)/test.stamp
	$(BIN)/python benchmarks/rivals.py --threads 1
	$(BIN)/python benchmarks/rivals.py --threads 2
	$(BIN)/python benchmarks/networks.py --threads 1

clean:
	rm -rf $(VENV) build dist *.egg-info fastnn-demo
	find fastnn_ext -name '*.so' -delete
