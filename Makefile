# The virtual environment is .venv; it is brought up to date when the requirements have changed.
# All paths are relative, because make cannot handle spaces in them.

PYTHON ?= python3
VENV := .venv/bin
# The compose file refuses to be read without these.
COMPOSE_SECRETS := POSTGRES_PASSWORD=unused VALKEY_PASSWORD=unused BACKBEAT_API_KEY=unused-for-checks

export PATH := $(CURDIR)/$(VENV):$(PATH)

# The lock files name all that is needed; pip does not look for more.
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps

.PHONY: help run otel test lint hooks bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' Makefile

run: .venv/installed ## start everything in this terminal; Ctrl-C stops it
	@exec $(VENV)/python -m scheduler_app.standalone

otel: .venv/installed ## install what traces need, see docs/operating.md
	@$(PIP) -r requirements-otel.lock

# Compiled code is kept, whatever the caller says: else each process that a test starts would compile all again.
test: export PYTHONDONTWRITEBYTECODE :=
test: .venv/installed-dev ## run the tests; ARGS="-k name" goes to pytest
	@$(VENV)/python -m pytest $(ARGS)

lint: .venv/installed-dev ## linters, types, import contracts, compose file and Dockerfile
	ruff check . && ruff format --check . && mypy && lint-imports && $(COMPOSE_SECRETS) docker-compose config -q && hadolint Dockerfile

hooks: .venv/installed-dev ## git hooks: linters and types on commit, tests on push
	@$(VENV)/python -m pre_commit install

bench: .venv/installed-dev .venv-bench/installed ## run the benchmarks; ARGS="--only drain,accept --quick" for a part
	@$(VENV)/python -m benchmarks $(ARGS)

lock: .venv/installed-dev ## pin again, with hashes, what the requirements bring in
	@for name in requirements requirements-otel requirements-dev requirements-bench; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
			--custom-compile-command "make lock" --output-file $$name.lock $$name.txt || exit; done

clean: ## remove the virtual environment and caches; data stays
	rm -rf .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/installed: requirements.lock | .venv/bin/pip
	@echo "Installing requirements.lock"
	@$(PIP) -r requirements.lock
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	@echo "Installing requirements-dev.lock"
	@$(PIP) -r requirements-dev.lock
	@touch $@

.venv-bench/installed: requirements-bench.lock | .venv/bin/pip
	@echo "Installing requirements-bench.lock"
	@test -x .venv-bench/bin/pip || $(VENV)/python -m venv .venv-bench
	@$(subst .venv,.venv-bench,$(PIP)) -r requirements-bench.lock
	@touch $@

.venv/bin/pip:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name one, for example: make run PYTHON=python3.13" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv
