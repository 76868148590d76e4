# make demo   tunes a real model on real data, from a fresh clone
# make docs   builds the documents into docs/_build/html
# make test   everything that must hold before a change goes in
# Needs Python 3.11 or newer and make. Another interpreter: make PYTHON=python3.13 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A stamp per set of extras: nothing is installed again until these two files change.
DEMO_READY := $(VENV)/.demo-ready
TEST_READY := $(VENV)/.test-ready

.PHONY: demo docs test clean

demo: $(DEMO_READY)
	$(BIN)/python examples/tune_svm_digits.py

test: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not alone"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone
	$(MAKE) docs

docs: $(TEST_READY)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info

$(DEMO_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[examples]"
	@touch $@

$(TEST_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[test]"
	@touch $@ $(DEMO_READY)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
