# Every target sets itself up on a fresh machine: a virtual environment, then the pinned versions.
PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(abspath $(VENV))/Scripts
else
BIN := $(abspath $(VENV))/bin
endif
# One thread per process: pytest runs two processes, and torch's own threads would compete with them. Freed memory stays
# with its process (glibc), which would fetch it again for the next tensor, a tenth of the time of a forecast. Files are
# handed out in the order of tests/conftest.py, the heaviest first, and not by their number of tests.
TESTS := OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=134217728 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-fast test-long bench lint types contracts docs dist format clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Unless the environment says otherwise: a holding of one day, so that the dates of the test year are independent, and
# eight paths for each window. With KRONOS_SAMPLES=0 the checkpoint's own head ranks in place of the paths.
demo: export KRONOS_HOLD ?= 1
demo: export KRONOS_SAMPLES ?= 8
demo: export KRONOS_SCORE ?= $(if $(filter 0,$(KRONOS_SAMPLES)),auto,paths)
demo: $(VENV)/.run  ## rank and trade a simulated market by paths and by a fitted head, compare; results in out/
	@command -v $(BIN)/qrun >/dev/null || { echo "Qlib has no wheels for this version of Python:" \
	  "make clean, then make demo PYTHON=python3.11 (3.10 to 3.12)." >&2; exit 1; }
	@mkdir -p out
	cd out && $(BIN)/qrun ../configs/kronos_csi300.yaml
	cd out && KRONOS_SAMPLES=0 $(BIN)/qrun ../configs/kronos_csi300_head.yaml
	cd out && $(BIN)/kronos compare zero-shot=kronos_csi300 fitted-head=kronos_csi300_head --html compare.html

test: $(VENV)/.dev  ## all tests but the long ones, on two processes of one thread each; prints the slowest 25
	$(TESTS) -m "not long" --durations=25

test-fast: $(VENV)/.dev  ## unit tests alone: no test starts a process or takes more than a few seconds
	$(TESTS) -m "not integration and not slow and not long" --durations=10

test-long: export KRONOS_KILLS ?= 20
test-long: export KRONOS_FUZZ ?= 10000
test-long: export KRONOS_FUZZ_SECONDS ?= 14400
test-long: $(VENV)/.dev  ## kill -9 in many places, 10,000 damaged files of bars, full disks, memory; an hour or more
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -s --durations=10
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --ignore tests/faults --durations=10

bench: $(VENV)/.dev  ## how fast forecasts are compared with upstream's algorithm; results in out/benchmarks.json
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/.dev  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## check static types
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## check which package may import which
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## build the documentation in out/docs; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(VENV)/.dev  ## build the source distribution and the wheel in dist/
	$(BIN)/python -m build

format: $(VENV)/.dev  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and all results
	rm -rf $(VENV) out dist

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if v >= (3, 10) else f"Python {v[0]}.{v[1]} is too old: call make with PYTHON=python3.11 (3.10 or later).")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[qlib,report]'
	@touch $@

# Without Qlib where it has no wheels; tests of it are then skipped.
$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run
