# `make help` lists the targets. Every target sets up what it needs: the stamp $(READY) is made
# again only when pyproject.toml or the lock changes, so the second time costs nothing.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := requirements/dev.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test check soak lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

setup: $(READY) ## Make .venv and install byzerllm with what the tests need

demo: $(READY) ## Fetch the small real model, ask it something, step in between
	$(BIN)/byzerllm models pull smollm2
	$(BIN)/python examples/demo.py

test: $(READY) ## Run every test but the long ones, the real model included
	$(BIN)/byzerllm models pull smollm2
	$(BIN)/python -m pytest -m "not soak"

check: $(READY) ## Format, lint, types and the fast tests, in under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(BIN)/python -m pytest -q -m "not local and not soak"

soak: $(READY) ## Run the tests that take long or need an environment of their own
	$(BIN)/byzerllm models pull smollm2
	$(BIN)/python -m pytest -m soak

lock: ## Write the lock again after a change of dependencies (LOCK_FLAGS=--upgrade: newest)
	scripts/lock $(PYTHON) $(LOCK_FLAGS)

clean: ## Remove .venv and the caches; downloaded models stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The build back end is in the lock too, hence --no-build-isolation: nothing without a hash runs.
$(READY): pyproject.toml $(LOCK) scripts/create-venv
	scripts/create-venv $(PYTHON) $(VENV)
	@echo "Installing into $(VENV), under a minute ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
		--require-hashes --only-binary :all: -r $(LOCK)
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@
