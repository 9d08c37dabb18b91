# ppdgm: `make demo` and `make test` work on a fresh machine with Python >= 3.11, git and make.
#
#   make test PYTHON=python3.12 VENV=.venv312        another Python, in an environment of its own
#   make test PYTEST_ARGS="-k ppca -x"               some of the tests
#   make test INSTALL_ARGS="--extra-index-url ..."   where else pip looks, for example for torch without CUDA
#   make bench BENCH_ARGS="steps epoch"              some of the tables (benchmarks/programs/__init__.py)

PYTHON ?= python3
VENV ?= .venv
INSTALL_ARGS ?=
PYTEST_ARGS ?=
BENCH ?= -m benchmarks.programs
BENCH_ARGS ?=

# At most two test processes: each compiles for both backends. With more than one, each keeps to one thread.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ $$n -gt 2 ] && n=2; echo $$n)
THREADS = $(if $(filter 0 1,$(WORKERS)),,OMP_NUM_THREADS=1)

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check $(INSTALL_ARGS) -c constraints.txt
BASE := $(VENV)/.ppdgm-base
DEV := $(VENV)/.ppdgm-dev
SAY = @printf '\n== %s\n'

.PHONY: help demo test test-all quick lint format docs notebooks bench clean distclean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(BASE)  ## train a VAE on real data, on the default backend (about a minute)
	$(SAY) "demo"
	@$(PY) tutorials/demo.py

test: lint  ## linting, type check, import rules, and the tests on both backends
	$(SAY) "pytest, $(WORKERS) process(es)"
	@$(THREADS) $(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-all: $(DEV)  ## every case of the tests in tests/long.txt too: about an hour and a half
	$(SAY) "pytest --all, $(WORKERS) process(es)"
	@$(THREADS) $(PY) -m pytest --all -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

quick: $(DEV)  ## the tests of tests/quick.txt: two minutes, and most breakage is found
	$(SAY) "pytest, $(WORKERS) process(es)"
	@$(THREADS) $(PY) -m pytest -n $(WORKERS) --dist worksteal --all @tests/quick.txt $(PYTEST_ARGS)

lint: $(DEV)  ## ruff, mypy and the import rules, without the tests
	$(SAY) "ruff check"
	@$(PY) -m ruff check .
	$(SAY) "ruff format --check"
	@$(PY) -m ruff format --check .
	$(SAY) "mypy"
	@$(PY) -m mypy
	$(SAY) "lint-imports"
	@$(VENV)/bin/lint-imports --no-logo

format: $(DEV)  ## put the code in order (ruff)
	$(SAY) "ruff format"
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(DEV)  ## the documentation site in build/site, offline; fails on a broken link or an undocumented name
	$(SAY) "mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(PY) -m mkdocs build --strict --quiet
	@echo "Built. To read and search it: $(PY) -m http.server -d build/site"

notebooks: $(DEV)  ## the tutorials as notebooks, in build/notebooks
	@$(PY) docs/tools/notebooks.py

bench: $(DEV)  ## every program beside loops by hand, Pyro, NumPyro and pythae: an hour, on an idle machine
	$(SAY) "$(BENCH) $(BENCH_ARGS)"
	@$(PY) $(BENCH) $(BENCH_ARGS)

clean:  ## remove caches and builds; the environment stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ppdgm tests tutorials benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## remove the environment too
	rm -rf $(VENV)

# --- the environment: made once, and again when pyproject.toml or constraints.txt changes ---

# pip is the last thing that venv writes, so a half-made environment is made again.
$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "ppdgm needs Python 3.11 or newer; '$(PYTHON)' was not found. Say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ppdgm needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "== making $(VENV) with $$($(PYTHON) -V 2>&1)"
	@$(PYTHON) -m venv $(VENV)

# A Python that was asked for, and is not the one in the environment, is an error rather than ignored.
ifeq ($(origin PYTHON),command line)
ASKED := asked-python
.PHONY: asked-python
asked-python: | $(VENV)/bin/pip
	@[ "$$($(PYTHON) -V)" = "$$($(PY) -V)" ] || { echo "$(VENV) has $$($(PY) -V), not $$($(PYTHON) -V): 'make distclean' first, or give another VENV=..."; exit 1; }
endif

# The development set contains the demo's, so after `make test` the demo installs nothing.
$(BASE): pyproject.toml constraints.txt | $(VENV)/bin/pip $(ASKED)
	@if [ ! $(DEV) -nt pyproject.toml ] || [ ! $(DEV) -nt constraints.txt ]; then \
		echo "== installing ppdgm with JAX and NumPyro into $(VENV) (a minute or more, once)"; \
		$(PIP) -e . || exit 1; \
	fi
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(VENV)/bin/pip $(ASKED)
	@echo "== installing ppdgm with both backends and the development tools into $(VENV) (some minutes, once)"
	@$(PIP) -e ".[dev]"
	@touch $(BASE) $@
