# Everything sets itself up: Python 3.11+ and make are all that has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check broker sim bench chaos clean
.DEFAULT_GOAL := help

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## a month of flights through the journal, with a kill -9 in the middle (LOG=kafka://host:port for Kafka)
	$(BIN)/python -P examples/flights/demo.py $(if $(LOG),--log $(LOG))

test: $(READY)  ## all tests; starts a real Kafka of its own
	$(BIN)/python -P -m pytest -q -m "not chaos and not bench" $(ARGS)

check: $(READY)  ## lint, types, import contracts, schemas
	$(BIN)/ruff check events projections streams kernels tests examples
	$(BIN)/ruff format --check events projections streams kernels tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -P -m millstream.events.schema_check

broker: $(READY)  ## a real local Kafka in the foreground, no Docker and no Java needed
	$(BIN)/millstream broker run

sim: $(READY)  ## simulate the protocol for a minute, seed after seed (SEED=n replays one)
	PYTHONPATH=. $(BIN)/python -P -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seconds 60)

bench: $(READY)  ## figures, one JSON line each (QUICK=1: under two minutes)
	PYTHONPATH=. $(BIN)/python -P -m tests.benchmarks.run $(if $(QUICK),--quick)

chaos: $(READY)  ## the long runs: kills and fights on a real broker, the models in large bounds
	$(BIN)/python -P -m pytest -q -m chaos $(ARGS)
	PYTHONPATH=. $(BIN)/python -P -m tests.models.run --bounds large

clean:  ## forget the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Millstream needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Try: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
