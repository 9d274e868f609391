# make demo, make test: each creates .venv and installs what it needs. Nothing else has to be there but python3 with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-fast bench lint wheel clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.bert

# The wheel is what is tested: the tests run against the installed package and not against this folder.
test: $(VENV)/test.stamp wheel
	$(BIN)/pytest

# Without the TensorFlow workload.
test-fast: $(VENV)/test.stamp wheel
	$(BIN)/pytest -m "not bert"

bench: $(VENV)/test.stamp wheel
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/test.stamp
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	$(PIP) install --quiet --no-deps --force-reinstall dist/*.whl

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml
	$(PIP) install --quiet '.[bert]'
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp pyproject.toml
	$(PIP) install --quiet '.[bert,test]'
	touch $@

clean:
	rm -rf $(VENV) dist build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
