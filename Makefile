# make setup      .venv with everything, from constraints.txt
# make demo       the whole way on the synthetic shop; endpoints are left running
# make lint       style, types, order of imports
# make test-fast  the tests without Ray, MLflow server, browser or long computations: under 3 minutes on 2 cores
# make test       lint and every test: under 25 minutes on 2 cores
# make docs       the documentation as a site, in site/
# make down       stops what `make demo` left running

PYTHON ?= python3
# The pins hold for Python 3.11 to 3.13; some of their versions never supported 3.10.
PINS   := $(shell $(PYTHON) -c "import sys; print('-c constraints.txt' if sys.version_info >= (3, 11) else '')")
VENV   := .venv
BIN    := $(VENV)/bin
SHOP   := $(CURDIR)/data/demo

.PHONY: help setup demo test test-fast lint docs browser down clean

help:
	@sed -n 's/^# make/make/p' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PINS) -e '.[test]'
	touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m workloads.demo $(SHOP)

down: setup
	$(BIN)/shoplens down

browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	  then apt-get update -qq && apt-get install -y -qq chromium fonts-nanum >/dev/null; \
	  else echo "no Chromium here: the browser test will be skipped (apt-get install chromium fonts-nanum)"; fi; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test-fast: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 -m "not ray and not browser and not slow"

test: setup browser lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
