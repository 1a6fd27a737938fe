# A fresh machine needs Python >= 3.11, make and git. Every target makes its own .venv first; a second call does not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DOCS_READY := $(VENV)/docs-ready
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help quickstart test test-slow test-survival check format benchmark docs clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

$(READY): pyproject.toml src/contrex/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "contrex needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

quickstart: $(READY)  ## train, explain, measure and show on the built-in digits: about 4 minutes on 2 CPU cores
	$(BIN)/contrex quickstart

test: $(READY)   ## the default suite: no network, minutes
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(READY)   ## also what takes minutes, but for what test-survival has
	$(BIN)/python -m pytest -m "slow or not survival"

test-survival: $(READY)   ## kills, faults and several processes, for half an hour; prints trials, survived, lost
	$(BIN)/python -m pytest -m survival tests/survival

check: $(READY)  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PARALLEL)

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(READY)  ## the ratios of benchmarks/, on this machine
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/consistency_loss.py
	$(BIN)/python benchmarks/grad_cam.py
	$(BIN)/python benchmarks/explainers.py
	$(BIN)/python benchmarks/contrastive_step.py
	$(BIN)/python benchmarks/metrics.py

docs: $(DOCS_READY)  ## the documentation as a site, in docs/_build/html: no network; a minute or two, five with the gallery's networks
	$(BIN)/python docs/site/build.py

clean:           ## remove the environment and caches
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
