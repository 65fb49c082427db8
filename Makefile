# make demo    the main job, from nothing: an environment, the package, training, registering, finding, loading
# make test    everything a change must pass, on every Python of 3.11, 3.12 and 3.13 that runs here
# make help    the rest

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Bytecode files make every one of the many short-lived interpreters below start faster.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# Worker processes of pytest; one per core, as found by pytest-xdist.
JOBS ?= auto
PYTEST := -m pytest -n $(JOBS) --maxprocesses=8
# Arguments for the tests: make test ARGS="-k cache"
ARGS ?=

.PHONY: help demo test lint format typecheck coverage test-main test-others test-long test-shared test-azure bench bench-peers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv-demo/.stamp ## Install into .venv-demo and run the main job: train, register, find, load, predict
	.venv-demo/bin/modelstore demo

test: lint test-main test-others ## Lint, types, layers, and the tests on every Python found here

# Environments. A stamp is newer than pyproject.toml when what it lists is installed; nothing is installed twice.

# $(call make-venv,DIRECTORY,INTERPRETER): an empty environment whose pip knows dependency groups.
define make-venv
	rm -rf $(1)
	"$(2)" -m venv $(1)
	$(1)/bin/python $(PIP_INSTALL) --upgrade "pip>=25.1"
endef

# The interpreter is looked for only where an environment has to be made.
best_python = $(shell .ci/pythons | awk 'NR == 1 { print $$2 }')
need-python = @test -n "$(best_python)" || { echo "Python 3.11 or newer (with venv) is needed, and none was found." >&2; exit 1; }

$(VENV)/.stamp: pyproject.toml
	$(need-python)
	$(call make-venv,$(VENV),$(best_python))
	$(BIN)/python $(PIP_INSTALL) --editable ".[all,demo]" --group test --group lint
	@touch $@

.venv-demo/.stamp: pyproject.toml
	$(need-python)
	$(call make-venv,.venv-demo,$(best_python))
	.venv-demo/bin/python $(PIP_INSTALL) --editable ".[all,demo]"
	@touch $@

# Other Pythons get the bare package: what needs an extra skips there.
.venv-3.%/.stamp: pyproject.toml
	$(call make-venv,.venv-3.$*,$(shell .ci/pythons | awk '$$1 == "3.$*" { print $$2 }'))
	.venv-3.$*/bin/python $(PIP_INSTALL) --editable . --group test-core
	@touch $@

# Checks

lint: $(VENV)/.stamp ## Style, formatting, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

typecheck: $(VENV)/.stamp
	$(BIN)/mypy

format: $(VENV)/.stamp ## Format, and fix what can be fixed without thought
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Counting lines is nearly free where Python counts them itself (3.12); counting branches takes as long as the tests.
test-main: $(VENV)/.stamp
	@echo "--- Python $$($(BIN)/python -c 'import platform; print(platform.python_version())'), all extras ---"
	COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if hasattr(sys, "monitoring") else "ctrace")') \
		$(BIN)/python $(PYTEST) --cov --cov-report=term:skip-covered $(ARGS)

coverage: $(VENV)/.stamp ## Which branches the tests take, on one Python
	COVERAGE_CORE=ctrace $(BIN)/python $(PYTEST) --cov --cov-branch --cov-report=term:skip-covered $(ARGS)

# Runs every other Python even when one fails, then fails if any did.
test-others:
	@main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); failed=; \
	for version in $$(.ci/pythons | awk '$$1 ~ /^3\.(11|12|13)$$/ { print $$1 }'); do \
		if [ "$$version" = "$$main" ]; then continue; fi; \
		$(MAKE) --no-print-directory .venv-$$version/.stamp || { failed="$$failed $$version"; continue; }; \
		echo "--- Python $$(.venv-$$version/bin/python -c 'import platform; print(platform.python_version())'), no extras ---"; \
		HYPOTHESIS_PROFILE=few .venv-$$version/bin/python $(PYTEST) -q $(ARGS) || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed on Python:$$failed" >&2; exit 1; fi

test-long: $(VENV)/.stamp ## The slow tests, with many more generated examples
	HYPOTHESIS_PROFILE=night $(BIN)/python $(PYTEST) --timeout=3600 -m "long" $(ARGS)

test-shared: $(VENV)/.stamp ## The tests of classes and registries once more, on shared registries
	MODELSTORE_TEST_KIND=shared $(BIN)/python $(PYTEST) -q tests/registry tests/sdk tests/sync $(ARGS)

# Servers for two backends that Python has none for; the tests skip where they are not installed.
test-azure: $(VENV)/.stamp build/servers/.stamp ## The storage tests that need servers from npm (Azurite, s3rver), which come into build/
	$(BIN)/python -m pytest -s tests/storage/test_backends.py tests/registry/test_buckets_azure.py \
		-m "long or not long" -k "TestAzure or TestS3OfAnotherMaker or test_buckets_azure" $(ARGS)

# Real NFS servers and clients, each a kernel of its own; MODELSTORE_NFS_SECONDS sets how long each kind is tried.
test-nfs: $(VENV)/.stamp ## A team on a real NFS server (needs what tests/nfs/lab.sh install brings)
	$(BIN)/python -m pytest tests/nfs -m nfs -s $(ARGS)

build/servers/.stamp:
	mkdir -p $(@D)
	npm --prefix $(@D) install --no-audit --no-fund azurite@3 s3rver@3
	@touch $@

# Benchmarks. Peers live in environments of their own: their requirements contradict each other, and ours.

bench: .venv-demo/.stamp ## Measure us against the machine's limits, and against the peers that are installed
	.venv-demo/bin/python -m benchmarks.run $(ARGS)

PEERS := mlflow clearml bentoml transfer aws tensorboardx
bench-peers: $(PEERS:%=.venv-peers-%/.stamp) ## Install the peers for make bench

.venv-peers-mlflow/.stamp: REQUIREMENTS := "mlflow>=3,<4"
.venv-peers-clearml/.stamp: REQUIREMENTS := "clearml==2.1.12"
.venv-peers-bentoml/.stamp: REQUIREMENTS := "bentoml>=1.4,<2"
# One environment for those that agree with each other; s3fs and the command line of AWS want different botocores.
.venv-peers-transfer/.stamp: REQUIREMENTS := "s3fs>=2025.1" "fsspec[http]" "huggingface_hub>=1" "pooch>=1.8" \
	"diskcache>=5.6" "obstore>=0.8"
.venv-peers-aws/.stamp: REQUIREMENTS := "awscli>=1.42,<2" "boto3>=1.40"
.venv-peers-tensorboardx/.stamp: REQUIREMENTS := "tensorboardX>=2.6"
.venv-peers-%/.stamp: Makefile
	$(need-python)
	$(call make-venv,.venv-peers-$*,$(best_python))
	.venv-peers-$*/bin/python $(PIP_INSTALL) $(REQUIREMENTS)
	@touch $@

clean: ## Remove everything made here
	rm -rf .venv .venv-* build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache benchmarks/out
	find modelstore tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
