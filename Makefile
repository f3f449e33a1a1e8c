# Every command a person types. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := schemas kit services simulator deploy tests
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check unit lint types imports schemas bench up down clean lock tools

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements.lock deploy/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Pacesetter needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/bootstrap.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

setup: $(READY) ## Install everything that is pinned in requirements.lock into .venv

demo: $(READY) ## A sales organisation at work, live; Ctrl-C ends it (ARGS="--for 60s")
	@$(BIN)/python -m simulator.demo $(ARGS)

test: $(READY) check tools ## All checks and tests, on real Kafka and PostgreSQL (ARGS="-k board")
	$(BIN)/python -m pytest $(ARGS)

check: lint types imports schemas ## Style, types, import contracts, exported schemas

lint: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(READY)
	$(BIN)/mypy $(SOURCES)

imports: $(READY)
	$(BIN)/lint-imports

schemas: $(READY)
	$(BIN)/python -m schemas check

unit: $(READY) ## Only the tests that need no server
	$(BIN)/python -m pytest tests/unit $(ARGS)

bench: $(READY) ## Each stage beside its bare floor, in one run
	@$(BIN)/python -m tests.bench $(ARGS)

up: $(READY) ## Start Kafka and PostgreSQL in the background (see also: deploy.local --help)
	@$(BIN)/python -m deploy.local up $(ARGS)

down: $(READY) ## Stop them
	@$(BIN)/python -m deploy.local down $(ARGS)

tools: ## What only tests need: Chromium to look at pages, Prometheus to prove dashboards
	@missing=""; for tool in chromium prometheus; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	test -z "$$missing" || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } || \
		echo "Missing:$$missing; the tests that need them will say so. On Debian: apt-get install$$missing"

lock: ## Refresh requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--upgrade --group dev --group local pyproject.toml -o requirements.lock

clean: ## Remove what the commands above have made
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local clean; fi
	rm -rf $(VENV) .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
