# make demo, make test: each creates .venv and installs what it needs. Nothing else has to be there but python3 with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-fast test-all test-backends test-hardware bench lint wheel clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.bert

# The wheel is what is tested: the tests run against the installed package and not against this folder.
test: $(VENV)/test.stamp wheel
	$(BIN)/pytest -m "not backend"

# Without the TensorFlow workload.
test-fast: $(VENV)/test.stamp wheel
	$(BIN)/pytest -m "not bert and not backend"

# The core's tests on each Python from 3.10 to 3.13 that this machine has, without frameworks and backends.
test-all:
	@set -e; found=; for version in 3.10 3.11 3.12 3.13; do \
	  python=$$(command -v python$$version || true); \
	  [ -n "$$python" ] && "$$python" -c "" 2>/dev/null || { echo "python$$version is not here"; continue; }; \
	  found=1; venv=.venv-$$version; echo "== python$$version"; \
	  [ -x $$venv/bin/python ] || "$$python" -m venv $$venv; \
	  $$venv/bin/python -m pip --disable-pip-version-check install --quiet '.[test]'; \
	  $$venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall .; \
	  $$venv/bin/pytest -q -m "not bert and not backend"; \
	done; [ -n "$$found" ]

# Against real backends, each installed once under .cache/backends (1.9 GB): phoenix, MLflow, rotel, Prometheus, FastAPI.
test-backends: $(VENV)/test.stamp wheel
	$(BIN)/pytest -m backend tests/backends

# On a machine with an NVIDIA GPU or a RAPL counter: what its counters do, printed with model, driver and date.
test-hardware: $(VENV)/test.stamp wheel
	$(BIN)/pytest -q -m hardware tests/hardware

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
