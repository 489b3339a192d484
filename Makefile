# Two commands matter: `make demo` and `make test`. Each sets up everything it needs, once.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(CURDIR)/build/compiled
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-long test-failed test-compiled check packages compiled bench fuzz migration openapi lock clean help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## sign in, ask a model through agent and gateway, show the account (ONCE=1: then exit)
	@$(BIN)/python -m tests.demo

test: check ## static checks and every test (under 12 minutes)
	@$(BIN)/python -m pytest -m "not long" $(PARALLEL)

test-long: check ## the same with soaks and long kills
	@$(BIN)/python -m pytest $(PARALLEL)

test-failed: $(READY) ## what failed last time, once more and one after another; nothing else
	@$(BIN)/python -m pytest --last-failed --last-failed-no-failures=none --maxfail=1

packages: $(READY) ## installers in dist/ (ORG=org.toml: also its settings; PACKAGES: more options, see packaging/README.md)
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} PYTHONPATH=packaging \
	  $(BIN)/python -m llmgw_packaging $(if $(ORG),--org $(ORG)) $(PACKAGES)

compiled: $(COMPILED)/.ready ## the gateway with its hot path compiled, in build/compiled (two minutes; needs a C compiler)

test-compiled: compiled ## the functional tests on the compiled gateway
	@PYTHONPATH=$(COMPILED) $(BIN)/python -m pytest -m "not long" $(PARALLEL) tests/functional

bench: $(READY) ## measure what is claimed, as ratios of paired runs, on the compiled gateway where there is a compiler
	@$(MAKE) --no-print-directory compiled || { rm -rf $(COMPILED); echo "bench: what follows is of the gateway as it is"; }
	@PYTHONPATH=$(COMPILED) $(BIN)/python -m tests.bench

check: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary --platform win32 --cache-dir .mypy_cache/win32 agent mdm
	@$(BIN)/lint-imports --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

fuzz: $(READY) ## fuzz every parser for FUZZ_SECONDS each (600), by atheris where it can be installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/fuzz/requirements.txt || true
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

migration: $(READY) ## write migration 0001 anew from schema.py (until the first release)
	@$(BIN)/python -m tests.gateway.store.first_migration
	@$(BIN)/ruff format --quiet gateway/llmgw_gateway/store/migrations

openapi: $(READY) ## write docs/admin-openapi.json anew from the table of the Admin API's endpoints
	@$(BIN)/python -m tests.gateway.admin.write_openapi

lock: ## resolve requirements.lock and packaging/*.lock again (needs the network)
	@$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@for part in agent gateway; do $(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --extra $$part --constraint requirements.lock --custom-compile-command "make lock" pyproject.toml \
	  -o packaging/$$part.lock || exit 1; done
	@$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --custom-compile-command "make lock" packaging/launcher.in -o packaging/launcher.lock
	@rm -rf $(VENV)-lock

clean: ## remove everything that the other targets made
	@rm -rf $(VENV) build .demo .lab .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(COMPILED)/.ready: $(READY) packaging/llmgw_packaging/compiling.py $(shell find gateway -type f -not -path '*/__pycache__/*' -not -name '*.so')
	@echo "compiling the gateway's hot path: about two minutes"
	@PYTHONPATH=packaging $(BIN)/python -m llmgw_packaging.compiling $(COMPILED) > $(VENV)/compiling.log 2>&1 \
	  || { tail -20 $(VENV)/compiling.log; exit 1; }
	@touch $@

$(READY): requirements.lock pyproject.toml agent/llmgw_agent/token_stub.py packaging/bootstrap.py
	@$(PYTHON) packaging/bootstrap.py $(VENV) requirements.lock
	@touch $@
