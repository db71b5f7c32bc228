# python3, pip and make are all this needs. uv comes as a wheel; no interpreter is ever downloaded.
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
UV  := .tools/bin/uv
BIN := .venv/bin
T   ?= tests
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11

.PHONY: help install run test test-engines test-clients test-mcp check fix docs mutate lock clean

help:             ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.tools/bin/uv:
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools 'uv>=0.13,<0.14'

# The developer's packages include the server's: once they are there, they are what is kept in step.
.venv/.run: pyproject.toml requirements.lock requirements-dev.lock | .tools/bin/uv
	$(UV) venv --quiet --allow-existing .venv
	$(UV) pip sync --quiet --require-hashes -p .venv $(if $(wildcard .venv/.dev),requirements-dev.lock,requirements.lock)
	$(UV) pip install --quiet -p .venv --no-deps -e .
	touch $@

.venv/.dev: pyproject.toml requirements-dev.lock | .tools/bin/uv
	$(UV) venv --quiet --allow-existing .venv
	$(UV) pip sync --quiet --require-hashes -p .venv requirements-dev.lock
	$(UV) pip install --quiet -p .venv --no-deps -e .
	touch $@

install: .venv/.run ## everything the server needs, in .venv (leaves .venv/bin/shepherd)

run: .venv/.run   ## the demo: gateway on :30000, one simulated worker, one MCP server, SQLite
	test -e .venv/.dev || $(UV) pip install --quiet -p .venv -c requirements-dev.lock openai # for what the demo proposes
	$(BIN)/shepherd demo

test: .venv/.dev  ## all tests that need no engine and no node (T=path runs some of them)
	tests/support/install_postgres.sh
	$(BIN)/pytest -n auto $(T)

.venv-engines/.done: tests/engines/requirements.lock | .tools/bin/uv
	$(UV) venv --quiet --allow-existing .venv-engines
	$(UV) pip sync --quiet --require-hashes -p .venv-engines tests/engines/requirements.lock
	touch $@

test-engines: .venv/.dev .venv-engines/.done ## chat through a real model server with a tiny model made here
	$(BIN)/pytest -m engines tests/engines

tests/js/node_modules/.package-lock.json: tests/js/package.json tests/js/package-lock.json
	if command -v npm; then npm ci --prefix tests/js --no-audit --no-fund; fi

test-clients: .venv/.dev tests/js/node_modules/.package-lock.json ## servers and clients from npm (skipped without node)
	$(BIN)/pytest -m clients tests

# A server that needs an older SDK than ours lives apart.
.venv-servers/.done: tests/servers/requirements.lock | .tools/bin/uv
	$(UV) venv --quiet --allow-existing .venv-servers
	$(UV) pip sync --quiet --require-hashes -p .venv-servers tests/servers/requirements.lock
	touch $@

test-mcp: .venv/.dev .venv-servers/.done tests/js/node_modules/.package-lock.json ## the MCP conformance suite, and servers nobody here wrote
	$(BIN)/pytest -m clients tests/conformance tests/contract/mcp

check: .venv/.dev ## format, lint, layers, types, the house law, migrations in step
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/pytest tests/unit/test_house.py
	$(BIN)/shepherd migrate --check

fix: .venv/.dev   ## format and mend what can be mended mechanically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev  ## write what is made from the code: docs/configuration.md and the table in README.md
	$(BIN)/python -m tests.docs.generated

mutate: .venv/.dev ## break the machine on purpose and see that its laws notice
	$(BIN)/python tests/laws/mutate.py

lock: | .tools/bin/uv ## resolve the dependencies again, with hashes and without an index's name
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock --group dev pyproject.toml -o requirements-dev.lock
	$(LOCK) tests/engines/requirements.in -o tests/engines/requirements.lock
	$(LOCK) tests/servers/requirements.in -o tests/servers/requirements.lock
	$(LOCK) --no-deps tests/support/postgres.in -o tests/support/postgres.lock

clean:            ## remove what the other targets made
	rm -rf .venv .venv-engines .venv-servers .tools var tests/js/node_modules .pytest_cache .ruff_cache .hypothesis .import_linter_cache
