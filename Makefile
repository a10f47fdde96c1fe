# make demo and make test each set up .venv, once, and do their job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint types contracts docs clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.txt requirements-bench.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and pinned: asked for by another package it could come as another build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements-dev.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

demo: install
	$(BIN)/niwaki demo --out niwaki-demo --overwrite

test: install
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

docs: install
	$(BIN)/mkdocs build --site-dir site

clean:
	rm -rf $(VENV) niwaki-demo build src/niwaki.egg-info
