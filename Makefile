# Everything a developer or an operator types. CI calls the same recipes.
PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests

.PHONY: run test test-all check types lint layers render bench kill-matrix kill-load lock clean

run: .venv/run-stamp  ## serve on 127.0.0.1:8080 with embedded defaults
	@exec $(BIN)/holdfast serve

test: check  ## lint, types, layers, rendered files, then the tests
	$(BIN)/python -m pytest -m "not slow" $(TESTS)

test-all: check  ## the same with the slow suites
	$(BIN)/python -m pytest $(TESTS)

check: lint types layers .venv/test-stamp
	$(BIN)/python docs/render.py --check
	$(BIN)/python docs/runbook_pages.py --check
	$(BIN)/holdfast ops check

lint: .venv/test-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test-stamp
	$(BIN)/mypy

layers: .venv/test-stamp
	$(BIN)/lint-imports

render: .venv/test-stamp  ## bring api.txt, the rendered documents and deploy/ up to date
	$(BIN)/python docs/render.py
	$(BIN)/python docs/runbook_pages.py
	$(BIN)/holdfast ops render

bench: .venv/test-stamp  ## time a turn against the bare agent's and on each store, each policy against a bare await, and telemetry
	$(BIN)/python bench/turn.py
	$(BIN)/python bench/durable.py
	$(BIN)/python bench/resilience.py
	$(BIN)/python bench/telemetry.py
	$(BIN)/python bench/monitor.py

kill-matrix: .venv/test-stamp  ## kill servers at every boundary of a turn, and count from outside what happened
	$(BIN)/python tests/kill/matrix.py

kill-load: .venv/test-stamp  ## kill a server under 1,000 turns, 20 times
	$(BIN)/python tests/kill/load.py

lock: .venv/test-stamp  ## pin the dependencies anew, with hashes and without addresses
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --upgrade pyproject.toml -o requirements/run.txt requirements/build.in
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --extra test -c requirements/run.txt pyproject.toml requirements/build.in -o requirements/test.txt

clean:  ## forget the environment; data/ stays
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Holdfast needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/run-stamp: .venv/bin/python requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/test-stamp: .venv/run-stamp requirements/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	@touch $@
