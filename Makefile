# Everything a fresh machine with python3 (>= 3.11) and make needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
DOCS = $(VENV)/.docs
OLDEST = .venv-min

# Empty is unset: the tests start processes, each of which would compile all of the package again.
test test-thorough test-quick test-all test-min: export PYTHONDONTWRITEBYTECODE =

.PHONY: all demo check test test-thorough test-quick test-all test-recipes test-min lint docs bench bench-compare clean
all: test

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(READY)

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $(DOCS)

$(OLDEST)/.ready: pyproject.toml tests/oldest_versions.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python tests/oldest_versions.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet -e '.[dev]' -c $(OLDEST)/constraints.txt
	touch $(OLDEST)/.ready

demo: $(READY)            ## blur a 24 Mpx scene by a camera shake, deblur it blind, print the gain
	$(BIN)/tilepipe demo -o demo --cache demo/cache

check: lint test test-thorough docs  ## what CI runs

test: $(READY)            ## the tests, in a few minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-thorough: $(READY)   ## those that take tens of seconds each: benchmarks, presets, clusters, many shapes
	$(BIN)/python -m pytest -q -n 2 -m thorough

test-quick: $(READY)      ## unit tests: no subprocess, no cluster, no whole run
	$(BIN)/python -m pytest -q tests/cache tests/deconv tests/execution tests/image tests/planning tests/system tests/tiling \
	    tests/test_architecture.py tests/test_settings.py

test-all: $(READY)        ## all tests
	$(BIN)/python -m pytest -q -m '' --timeout 3000

test-recipes:             ## the recipes for clusters, with dask-kubernetes, whose requirements slow the other installations
	$(PYTHON) -m venv .venv-recipes
	.venv-recipes/bin/python -m pip install --quiet -e . dask-jobqueue dask-kubernetes jsonschema pytest pytest-timeout hypothesis
	.venv-recipes/bin/python -m pytest -q -p no:cacheprovider tests/cluster/test_recipes.py

test-min: $(OLDEST)/.ready  ## the tests, with the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/python -m pytest -q -n 2 --dist loadfile

lint: $(READY)            ## style, spelling and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(DOCS)             ## documentation with the API reference, in site/; warnings are errors
	$(BIN)/mkdocs build --strict --quiet

bench: $(READY)           ## measure speed beside others (20 minutes, 8 GB of disk); the table goes to benchmarks/results
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m pip install --quiet --no-deps RedLionfish
	$(BIN)/python -m benchmarks.speed --out benchmarks/results

bench-compare: $(READY)   ## the ratios of the last two results of make bench on this processor; fails if one is 10 % worse
	$(BIN)/python -m benchmarks.compare

clean:
	rm -rf $(VENV) $(OLDEST) .venv-recipes demo site
