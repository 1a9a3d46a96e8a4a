# Everything a fresh machine with python3 (>= 3.11) and make needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: all demo test test-all lint bench clean
all: test

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(READY)

demo: $(READY)            ## shake a 24 Mpx scene, deblur it blind, say what it gained
	$(BIN)/tilepipe demo -o demo --cache demo/cache

test: $(READY)            ## all tests but the slow ones
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-all: $(READY)        ## all tests
	$(BIN)/python -m pytest -q -m 'slow or not slow' --timeout 3000

lint: $(READY)            ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)           ## measure speed beside others (20 minutes, 8 GB of disk); the table goes to benchmarks/results
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks.speed --out benchmarks/results

clean:
	rm -rf $(VENV) demo
