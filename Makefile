# Every target makes the virtual environment it needs, in .venv, and installs into it when the pins change.
# PYTHON chooses the interpreter (3.11 or newer): make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow browser check bench mutants gpu docs clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

demo: $(VENV)/export.stamp  ## train, prune, fine-tune and report on real digits, with no download
	$(BIN)/metaprune demo

test: $(VENV)/dev.stamp  ## the quick tests
	$(BIN)/pytest

test-slow: $(VENV)/dev.stamp  ## the slow tests
	$(BIN)/pytest -m "slow and not gpu"

browser: $(VENV)/browser.stamp  ## reports in headless Chromium, which the system must have (chromium, chromium-driver)
	$(BIN)/pytest -m browser -n0 -rs tests/report

check: $(VENV)/dev.stamp  ## style, types, and which way the imports point
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/bench.stamp  ## time what the documentation quotes
	$(BIN)/python benchmarks/alignment.py
	$(BIN)/python benchmarks/against_torch_pruning.py

mutants: $(VENV)/mutants.stamp  ## put faults into the code, and see which ones the tests catch (hours; goes on where it stopped)
	$(BIN)/python -m benchmarks.mutants

gpu: $(VENV)/dev.stamp  ## what only a GPU can show, in at most 8 minutes (DATA=… for CIFAR-10)
	$(BIN)/python benchmarks/gpu.py $(if $(DATA),--data $(DATA))

docs: $(VENV)/docs.stamp  ## build the documentation, into docs/_build
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

clean:  ## remove the environment and what was built
	rm -rf $(VENV) docs/_build dist

# One stamp for each extra of pyproject.toml.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
