# make demo      installs the product alone into .venv and makes eight postcards
# make test      adds what the tests need, checks, and runs every test that need not take long (EXTRAS=all: with partners)
# make fast      the tests that take a moment each      make lint   formats and rules, types, no tests
# make campaign  the long ones: kills, bytes and texts at random      make coverage   by room
# make bench     measures what the design promises

PYTHON ?= python3
EXTRAS ?=
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
comma := ,

.PHONY: install install-tests demo lint fast test campaign coverage bench

$(VENV)/.product: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.tests$(EXTRAS): $(VENV)/.product
	$(PIP) --editable '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	touch $@

install: $(VENV)/.product

install-tests: $(VENV)/.tests$(EXTRAS)

demo: install
	$(BIN)/python run.py naming=descriptive
	@echo "the pictures are in outputs/demo/"

lint: install-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/lint-imports --no-logo

fast: install-tests
	$(PYTEST) -m "not slow and not campaign"

test: lint
	$(PYTEST) -m "not campaign"

campaign: install-tests
	$(PYTEST) -m "campaign or hypothesis" --hypothesis-profile=campaign

coverage: install-tests
	$(BIN)/python -m coverage erase
	$(PYTEST) -m "not campaign and not gpu" --cov --cov-report=
	$(BIN)/python -m tests.coverage_by_room

bench: install-tests
	$(BIN)/python -m benchmarks
