# `make` prints this list. Everything runs in .venv, which is made when it is missing.

.DEFAULT_GOAL := help
.PHONY: help demo demo-wandb test lint reference docs pictures bench constraints clean system-packages

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

help:  ## print this list
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "make %-12s %s\n", $$1, $$2}'

.venv: .venv/installed  ## make the virtual environment with everything in it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	touch $@

demo: .venv  ## train small models that grok, audit them, say what to open (about three minutes)
	$(BIN)/spectral-edge demo

demo-wandb: .venv  ## the same with offline runs of Weights & Biases; no account
	$(BIN)/spectral-edge demo --wandb

# Three at once: most tests wait for servers. A file's tests stay together and share their servers; files come in their
# order, as sorting them by their number of tests puts the few long ones last, where two processes wait for the third.
test: .venv system-packages lint  ## lint, then all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: .venv  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy spectral_edge integrations pipelines tools
	$(BIN)/lint-imports

reference: .venv  ## write the pages that say what the code says
	$(BIN)/python tools/reference.py

docs: .venv  ## write docs/ as a site to build/site; a link that leads nowhere is an error
	$(BIN)/python -m mkdocs build --strict

pictures: demo system-packages  ## take the pictures in docs/images anew, from the demo
	SPECTRAL_EDGE_WRITE_IMAGES=1 $(BIN)/python -m pytest tests/demo/test_demo_pictures.py tests/contract/test_mlflow_page.py tests/docs/test_explained.py

bench: .venv  ## run each script of benchmarks/
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	  echo "== $$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; \
	done

constraints:  ## write constraints.txt: what a fresh environment resolves to today
	$(PYTHON) tools/constraints.py

clean:  ## remove the environment, caches and the demo
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache spectral-edge-demo spectral-edge-demo-wandb
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The tests drive a browser and a PostgreSQL server of their own.
system-packages:
	@tools/system-packages chromium chromium-driver postgresql
