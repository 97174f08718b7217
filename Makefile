# `make help` lists what can be done. `make run` and `make test` set everything up by themselves.
PYTHON ?= python3
# Processes that share the tests. Half of the time is waited for; more than there are cores would starve each other.
WORKERS ?= 2
BIN := .venv/bin
RUN_READY := .venv/.run-ready
DEV_READY := .venv/.dev-ready
DEV_PYTHON := PYTHONPATH=src $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help run migrate test test-mysql9 bench check lint fmt types imports drift lock clean

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(RUN_READY) ## Start the service on 127.0.0.1:8000, on SQLite, with no accounts
	$(BIN)/chatassist serve

migrate: $(RUN_READY) ## Bring the configured database to this version
	$(BIN)/chatassist migrate

test: $(DEV_READY) ## Run all tests, with coverage, in two processes; WORKERS=0 for one
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=$(if $(filter true,$(CI)),90,0)
	$(BIN)/coverage report --include='src/chatassist/domain/*' --fail-under=$(if $(filter true,$(CI)),95,0)

test-mysql9: $(DEV_READY) ## Run the tests of adapters and of the whole service on a real MySQL 9, brought from Debian sid
	PYTHONPATH=src tests/mysql9.sh .venv/mysql9 $(BIN)/pytest tests/integration

bench: $(DEV_READY) ## Compare the cost of a turn with a floor; BENCH='--quick' takes a minute, '--help' tells the rest
	$(DEV_PYTHON) -m benchmarks $(BENCH)

check: lint types imports drift test ## Everything CI asks for

lint: $(DEV_READY) ## Check format and style
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks

fmt: $(DEV_READY) ## Format, and mend what can be mended
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

types: $(DEV_READY) ## Check types
	$(BIN)/mypy

imports: $(DEV_READY) ## Check who imports whom
	PYTHONPATH=src $(BIN)/lint-imports

drift: $(DEV_READY) ## Check that migrations and tables agree
	$(DEV_PYTHON) -m chatassist.adapters.persistence.drift

lock: $(DEV_READY) ## Resolve the newest versions that go together, and pin them by hash
	$(BIN)/uv pip compile pyproject.toml --all-extras $(LOCKING) -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml -c requirements-dev.lock $(LOCKING) -o requirements.lock

LOCKING := --upgrade --universal --generate-hashes --no-emit-index-url --no-annotate -q \
	--custom-compile-command 'make lock'

clean: ## Remove the environment and what tools left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage* .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(RUN_READY): requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEV_READY): requirements-dev.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@ $(RUN_READY)
