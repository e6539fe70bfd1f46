# Everything that is done to this project, one target each; `make help` lists them.
#
# Every target that needs tools depends on the stamp in .venv, hence sets everything up by itself on a machine that
# has nothing but Python >= 3.11, make and git. The stamp is redone when pyproject.toml changes. A .venv that
# is there already is used and added to, never removed (`make distclean` does that).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.paxos-rsm-stamp

# Test processes at once: four, for much of an integration test is waiting. Each file's tests stay in one process, and
# the files are begun in their order: those with servers of their own take longest, and come before those without.
# `make test PYTEST_WORKERS=1` runs them one after the other.
PYTEST_WORKERS ?= 4
PYTEST_ARGS    ?=
PYTEST := $(BIN)/pytest -q $(if $(filter-out 1,$(PYTEST_WORKERS)),-n $(PYTEST_WORKERS) --dist loadfile \
    --no-loadscope-reorder) $(PYTEST_ARGS)

# What needs etcd's own programs is for `make test-etcd`.
ETCD_TESTS := tests/etcd tests/integration/test_command_line_beside_etcdctl.py
# What tries three times as many cases in `make test-long` (tests/forms.py).
MANY_CASES := $(addprefix tests/,model/test_machine.py sim/test_partial_connectivity.py sim/test_slice.py \
    unit/paxos/test_partial_connectivity.py unit/paxos/test_duel.py unit/paxos/test_node.py \
    unit/replica/test_chance.py unit/sim/test_weather.py unit/storage/test_crash_images.py \
    unit/storage/test_recovery.py unit/storage/test_repair.py unit/storage/test_verify.py)

NOT_ETCD := $(ETCD_TESTS:%=--ignore %)

# What the style tools look at; folders that are not there (yet) are left out.
CODE := $(wildcard paxos_rsm tools tests benchmarks examples)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes: where this is set, each compiles the whole package again (`make clean` removes
# what is kept).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-integration test-long test-etcd sim model fuzz mutants crash-images chaos bench \
        docs check lint types floors check-gen fmt gen hooks build clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it (every other target does so by itself)

demo: $(STAMP) ## three servers, a killed leader, a restart: shows that no acknowledged write is lost
	$(BIN)/paxos-rsm demo

test: $(STAMP) ## every test (PYTEST_WORKERS=1: one after the other; PYTEST_ARGS='-k lease -x' goes to pytest)
	@# Each process reads every test: what pytest makes of them is made once, in two halves, not by all at once.
	@test -d tests/__pycache__ || find tests -name 'test_*.py' | sort | \
	    xargs -n 165 -P 2 $(BIN)/pytest -q --collect-only >/dev/null 2>&1 || true
	$(PYTEST) tests $(NOT_ETCD)

test-unit: $(STAMP) ## the tests that start no server processes
	$(PYTEST) tests $(NOT_ETCD) -m 'not integration'

test-integration: $(STAMP) ## the tests with real server processes
	$(PYTEST) tests $(NOT_ETCD) -m integration

test-long: $(STAMP) ## the long forms: a minute of kills of real servers each (seven minutes in all), then three times the seeds
	PAXOS_RSM_LONG_TESTS=1 $(BIN)/pytest -q tests/integration -m slow $(PYTEST_ARGS)
	PAXOS_RSM_LONG_TESTS=1 $(PYTEST) $(MANY_CASES)

test-etcd: $(STAMP) ## etcd's own etcdctl against us, and a real etcd beside us (Debian: etcd-server, etcd-client)
	@for tool in "$${ETCD:-etcd}" "$${ETCDCTL:-etcdctl}"; do command -v "$$tool" >/dev/null || { \
	    echo "test-etcd needs $$tool, which is not there: apt-get install -y etcd-server etcd-client" >&2; \
	    echo "(or name one: make test-etcd ETCD=path ETCDCTL=path)" >&2; exit 1; }; done
	$(BIN)/pytest -q -n 2 --dist loadfile $(PYTEST_ARGS) $(ETCD_TESTS)

sim: $(STAMP) ## the simulator: 2,000 seeds of 5,000 events, nothing left out (SIM_ARGS='--first 100001 --seeds 500')
	$(BIN)/paxos-rsm sim --seeds 2000 --events 5000 $(SIM_ARGS)

model: $(STAMP) ## the key-value machine beside a naive model of etcd's rules: 10,000 examples (MODEL_EXAMPLES=50000)
	MODEL_EXAMPLES=$${MODEL_EXAMPLES:-10000} $(BIN)/pytest -q tests/model $(PYTEST_ARGS)

mutants: $(STAMP) ## plant bugs, each of which the simulator must find (MUTANTS_ARGS='--only NAME --limit 500')
	$(BIN)/python -m tests.mutants --workers 2 $(MUTANTS_ARGS)

crash-images: $(STAMP) ## 10,000 disks as a crash leaves them, 2,500 with a flipped bit: each must start or say why not
	CRASH_IMAGES=$${CRASH_IMAGES:-10000} $(BIN)/pytest -q -s tests/unit/storage/test_crash_images.py $(PYTEST_ARGS)

chaos: $(STAMP) ## break real servers for five minutes and check every answer (CHAOS_ARGS='--only leader-kill --times 50')
	$(BIN)/paxos-rsm chaos $(CHAOS_ARGS)

fuzz: $(STAMP) ## feed every decoder with 2,000,000 bad inputs (FUZZ_ARGS='--inputs 100000 --target kv-command --seed 7')
	$(BIN)/python -m tests.fuzz --inputs 2000000 $(FUZZ_ARGS)

bench: $(STAMP) ## measure loads and a killed leader against a local cluster (BENCH_ARGS='--runs 1 --seconds 2')
	bash benchmarks/run.sh $(BENCH_ARGS)

check: lint types floors check-gen ## everything that CI checks before the tests

lint: $(STAMP) ## formatting and lint (ruff), nothing is changed
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy --strict $(CODE)

floors: $(STAMP) ## imports point down only (import-linter, .importlinter)
	$(BIN)/lint-imports --no-cache

check-gen: $(STAMP) ## the committed stubs are what the protos say
	$(BIN)/python tools/gen_protos.py --check

fmt: $(STAMP) ## format, and mend what lint can mend
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

gen: $(STAMP) ## make paxos_rsm/_proto from protos/
	$(BIN)/python tools/gen_protos.py

hooks: $(STAMP) ## run `make check` before each commit (pre-commit)
	$(BIN)/pre-commit install

docs: $(STAMP) ## the reference of the Python API, from the docstrings, into build/docs
	$(BIN)/pdoc --docformat restructuredtext -o build/docs paxos_rsm paxos_rsm.errors paxos_rsm.client \
	    paxos_rsm.machines.base paxos_rsm.config paxos_rsm.checker paxos_rsm.testing.simulation \
	    paxos_rsm.testing.cluster paxos_rsm.testing.pytest_plugin

build: $(STAMP) ## the wheel, into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove caches and build products
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)

$(STAMP): pyproject.toml paxos_rsm/_version.py
	@if [ ! -e $(VENV) ]; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	        echo "paxos_rsm needs Python 3.11 or newer, and '$(PYTHON)' is not: name one with 'make PYTHON=python3.12'" >&2; \
	        exit 1; }; \
	    echo "making $(VENV) with $$($(PYTHON) --version)"; \
	    $(PYTHON) -m venv $(VENV) || { \
	        rm -rf $(VENV); \
	        echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu, install the package python3-venv" >&2; \
	        exit 1; }; \
	fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "$(VENV) has no working Python 3.11 or newer: remove it ('make distclean') and try again" >&2; exit 1; }
	@echo "installing paxos_rsm and its tools into $(VENV)"
	@$(BIN)/python -m pip install -q -e '.[cli,gateway,dev]'
	@touch $@
