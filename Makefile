# make train: data, training, evaluation and the result, from a bare machine.   make test: all tests, likewise.
# make learn: whether GFP and FQL still learn, in a quarter of an hour.
# make check: what to run before a commit, lint, types, and the tests that are not slow.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export GUIDEDFLOW_DATA ?= $(CURDIR)/data
TASK := cube-single-noisy-singletask-task1-v0

PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: train check test learn lint env clean

train: env
	$(BIN)/guidedflow data generate cube-single-noisy --episodes 100 --seed 0
	$(BIN)/guidedflow train $(TASK) --preset quick --seeds 0

check: env lint
	$(PYTEST) -m 'not slow'

test: env lint
	$(PYTEST)

learn: env
	$(BIN)/python -m benchmarks.learn

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

env: $(STAMP)

# openpi-client, which the tests of `guidedflow serve` speak through, asks for NumPy 1 and works with 2.
# dm_control, which ogbench stands on, asks for labmaze: nothing here uses it, and it has no wheels from Python 3.13 on.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "guidedflow needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
	  echo "installing into $(VENV)"; \
	  $(PIP) --constraint constraints.txt --editable '.[dev]'; \
	else \
	  echo "installing into $(VENV), without labmaze"; \
	  grep -v '^labmaze==' constraints.txt > $(VENV)/without-labmaze.txt && \
	  $(PIP) --no-deps --requirement $(VENV)/without-labmaze.txt && \
	  $(PIP) --no-deps --editable .; \
	fi
	$(PIP) --no-deps openpi-client==0.1.2
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
