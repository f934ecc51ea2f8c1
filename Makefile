# Everything works in a fresh clone on a machine with Python 3.11 or newer and make.

SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
LINT := .venv-lint
PEERS := .venv-peers
# The first of these that runs, is 3.11 or newer and can make a virtual environment. `make PYTHON=... run` chooses another.
PYTHON ?= $(shell for candidate in python3.11 python3.12 python3.13 python3; do \
	"$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$candidate"; break; }; done)
# pip's progress, a line a package.
SHORTEN = awk '/^(Collecting|Building|Installing|Successfully)/ {print "  " substr($$0, 1, 110); fflush()}'

.PHONY: help install install-dev run test test-fast check lint format types hooks ui serve serve-proxied cluster cluster-stop bench audit peers peers-split clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  ADSEQ_HOME=DIR chooses where everything is written (default: .adseq)."

run: install ## Install, write the synthetic world, run the whole flow on it, show the table of results
	$(BIN)/adseq demo

# Two processes share the cores: threads of each would be in the other's way.
test: install-dev ## Install, run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install-dev ## Run the tests that start no process and train nothing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --fast

check: lint types test ## What CI runs: format, lint, import direction, types, every test

# ruff and import-linter read the source and import nothing of it: they need no dependency of adseq.
lint: $(LINT)/installed ## Format, lint, import direction (a small environment of its own; seconds)
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/ruff check .
	$(LINT)/bin/lint-imports

format: $(LINT)/installed ## Format the code and mend what the linter can
	$(LINT)/bin/ruff format .
	$(LINT)/bin/ruff check --fix .

hooks: $(LINT)/installed ## Check each commit before it is made (.pre-commit-config.yaml)
	$(LINT)/bin/pre-commit install

# Without torch, Dagster and Optuna mypy would take their values for Any, and find less than CI finds.
types: install-dev ## Check the types against those of the dependencies
	$(BIN)/mypy

ui: install ## Open Dagster and MLflow on the home; Ctrl-C stops both
	$(BIN)/adseq ui

# Ray asks every process of the cluster for the token in ~/.ray/auth_token.
RAY_START = RAY_AUTH_MODE=token $(BIN)/ray start --node-ip-address=127.0.0.1 --num-cpus=1 --disable-usage-stats

cluster: install ## Start a Ray cluster of two nodes on this machine, for trying
	$(BIN)/python -m pip install --quiet --editable '.[ray]'
	@umask 077; $(BIN)/ray get-auth-token --generate >/dev/null; chmod 600 ~/.ray/auth_token
	$(RAY_START) --head --port=$(or $(PORT),6380)
	$(RAY_START) --address=127.0.0.1:$(or $(PORT),6380)
	@echo "Next: ADSEQ_ENGINE__KIND=ray ADSEQ_ENGINE__ADDRESS=127.0.0.1:$(or $(PORT),6380) $(BIN)/adseq run"
	@echo "      make cluster-stop ends both nodes."

cluster-stop: ## Stop every Ray node on this machine
	$(BIN)/ray stop

serve: install ## Answer requests for candidates on http://127.0.0.1:8080 (PORT=... another); Ctrl-C stops it
	$(BIN)/adseq serve --port $(or $(PORT),8080)

serve-proxied: install ## The same behind nginx, which bounds what a flood of connections may cost
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] \
		|| { echo "nginx is not installed (Debian: apt-get install nginx)." >&2; exit 2; }
	@$(BIN)/adseq serve --port $(or $(UPSTREAM),8081) & service=$$!; \
		$(BIN)/adseq proxy --port $(or $(PORT),8080) --upstream $(or $(UPSTREAM),8081) & proxy=$$!; \
		end() { kill -QUIT $$proxy || true; kill $$service || true; wait $$service || true; kill $$proxy || true; wait; }; \
		trap 'end 2>/dev/null' EXIT; trap 'exit 0' INT TERM; \
		wait -n

bench: install-dev ## Measure speed against peers and limits; writes docs/performance.md
	$(BIN)/python -m benchmarks

audit: install ## Hold the installed packages against known vulnerabilities (pip-audit; needs a network)
	@$(BIN)/python -m pip install --quiet --progress-bar off --editable '.[audit]'
	@if $(BIN)/pip-audit --skip-editable --progress-spinner off >$(VENV)/audit.txt 2>&1; then cat $(VENV)/audit.txt; \
	elif grep -qE 'requests\.exceptions\.|ServiceError|ConnectionError|Could not connect' $(VENV)/audit.txt; then \
		echo "No advisory source can be reached, so nothing was audited: run make audit where there is a network." >&2; \
		exit 2; \
	else cat $(VENV)/audit.txt; exit 1; fi

peers: peers-split install $(PEERS)/installed ## Train RecTools and implicit on a split, one table: make peers SPLIT=DIR [MODELS="als bm25"]
	$(BIN)/python -m benchmarks.peers "$(SPLIT)" --python $(PEERS)/bin/python $(if $(SEED),--seed $(SEED)) \
		$(if $(MODELS),--models $(MODELS)) $(if $(LISTS),--lists $(LISTS)) $(if $(AGAIN),--again)

peers-split: # Before minutes of installing
	@if [ ! -d "$(SPLIT)" ]; then \
		echo "Which split? make peers SPLIT=DIR, a directory that \`adseq split LANDING --out DIR\` has made." >&2; \
		echo "Further: MODELS=\"als bm25 cosine sasrec ligr hstu bert4rec\" SEED=0 LISTS=\"adseq=lists.parquet\" AGAIN=1" >&2; \
		exit 2; fi

clean: ## Remove the environments and the caches; the home (.adseq) stays
	rm -rf $(VENV) $(LINT) $(PEERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/installed ## Make .venv and install adseq into it (once for each change of pyproject.toml)
install-dev: $(VENV)/installed-dev ## The same, with the tools for tests and checks

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing adseq into $(VENV) (2.4 GB; about two minutes) ..."
	$(BIN)/python -m pip install --progress-bar off --editable . | $(SHORTEN)
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing adseq and its development tools into $(VENV) (2.4 GB; about two minutes) ..."
	$(BIN)/python -m pip install --progress-bar off --editable '.[dev]' | $(SHORTEN)
	@touch $(VENV)/installed $@

# The versions stand in pyproject.toml, in the extra `lint`. pip would install adseq's dependencies beside an extra.
$(LINT)/installed: pyproject.toml | $(LINT)/bin/python
	@echo "Installing ruff, import-linter and pre-commit into $(LINT) (100 MB; twenty seconds) ..."
	@$(LINT)/bin/python -m pip install --progress-bar off --requirement <($(LINT)/bin/python -c \
		'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"], sep="\n")' \
		) | $(SHORTEN)
	@touch $@

$(PEERS)/installed: benchmarks/peers/requirements.txt
	@echo "Installing the peers into $(PEERS), an environment of their own (1.4 GB; about two minutes) ..."
	@{ $(PYTHON) -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --progress-bar off \
		--requirement benchmarks/peers/requirements.txt | $(SHORTEN); } || { \
		echo "The peers could not be installed; adseq itself does not need them. Look at pip's message above, then:" >&2; \
		echo "  no network or index: run the same command again where there is one;" >&2; \
		echo "  no matching version: RecTools 0.19 needs Python 3.10 to 3.13: rm -r $(PEERS); make peers PYTHON=/path/to/python3.12 ..." >&2; \
		echo "  or install benchmarks/peers/requirements.txt anywhere and say where:" >&2; \
		echo "    $(BIN)/python -m benchmarks.peers SPLIT --python /path/to/that/bin/python" >&2; \
		exit 1; }
	@touch $@

$(BIN)/python $(LINT)/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "adseq needs Python 3.11 or newer with the venv module (Debian: apt install python3-venv)." >&2; \
		echo "None was found on the PATH. Where it has another name: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@echo "Making a virtual environment in $(@D:/bin=) with $$($(PYTHON) --version) ($(PYTHON)) ..."
	@$(PYTHON) -m venv $(@D:/bin=)
