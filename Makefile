# Every target sets itself up on a fresh machine: a virtual environment, then the pinned versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin

.PHONY: help demo test bench lint types contracts format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# Unless the environment says otherwise: a holding of one day, so that the dates of the test year are independent, and
# eight paths for each window. With KRONOS_SAMPLES=0 the checkpoint's own head ranks in place of the paths.
demo: export KRONOS_HOLD ?= 1
demo: export KRONOS_SAMPLES ?= 8
demo: export KRONOS_SCORE ?= $(if $(filter 0,$(KRONOS_SAMPLES)),auto,paths)
demo: $(VENV)/.run  ## rank and trade a simulated market by paths and by a fitted head, compare; results in out/
	@mkdir -p out
	cd out && $(BIN)/qrun ../configs/kronos_csi300.yaml
	cd out && KRONOS_SAMPLES=0 $(BIN)/qrun ../configs/kronos_csi300_head.yaml
	cd out && $(BIN)/kronos compare zero-shot=kronos_csi300 fitted-head=kronos_csi300_head --html compare.html

test: $(VENV)/.dev  ## all tests, on two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=25

bench: $(VENV)/.dev  ## how fast forecasts are beside upstream's algorithm; results in out/benchmarks.json
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/.dev  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## static types
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## who may import whom
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## forget the environment and all results
	rm -rf $(VENV) out

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(None if (3, 10) <= v < (3, 13) else f"Python {v[0]}.{v[1]} will not do: call make with PYTHON=python3.11 (3.10 to 3.12).")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[qlib,report]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run
