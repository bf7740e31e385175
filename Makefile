# make demo  installs into .venv and makes eight postcards        make test   installs, then checks and tests everything
# make bench measures what the design promises                    make lint   formats and checks without running tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint install fast

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python run.py naming=descriptive
	@echo "the pictures are in outputs/demo/"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fast: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

bench: install
	$(BIN)/python -m benchmarks
