# Every target sets up what it needs, so `make demo` works on a fresh clone.
# The default torch wheel on Linux brings CUDA (gigabytes). Without a GPU, take the CPU one:
#   make install TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
.DEFAULT_GOAL := help
.PHONY: help install demo docs docs-site pages test test-slow coverage test-rllib test-clients check format dashboard \
	wheel release-check clean

PYTHON ?= python3
TORCH_ARGS ?=
BIN = .venv/bin
STAMP = .venv/.installed
# RLlib pins an older gymnasium, so it has an environment of its own.
RLLIB = .venv-rllib
# Other learning libraries share one: they go together with constraints.txt, but sleepgym does not need them.
CLIENTS = .venv-clients

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## make .venv with everything that was tested (pins: constraints.txt)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,docs,gemma,minari]'
	touch $@

demo: $(STAMP) ## watch a rule and a policy live through one episode
	$(BIN)/python agents/demo.py

docs: $(STAMP) ## write the pages that come from code, cards and scripts
	$(BIN)/python scripts/environment_docs.py
	$(BIN)/python scripts/tutorials.py
	$(BIN)/python scripts/architecture.py

docs-site: $(STAMP) ## build the site of the documentation into site/, without a network; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pages: $(STAMP) ## rebuild every generated table and picture of the docs from the committed records
	$(BIN)/python benchmarks/pages.py
	$(BIN)/python scripts/environment_docs.py

test: $(STAMP) ## run the tests that take seconds, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

coverage: $(STAMP) ## run the tests that take seconds, and print the share of lines of sleepgym/ that they run
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

test-slow: $(STAMP) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

$(RLLIB)/.installed: pyproject.toml constraints.txt constraints-rllib.txt
	test -x $(RLLIB)/bin/python || $(PYTHON) -m venv $(RLLIB)
	grep -v '^gymnasium==' constraints.txt > $(RLLIB)/constraints.txt
	$(RLLIB)/bin/python -m pip install $(TORCH_ARGS) -c constraints.txt torch
	$(RLLIB)/bin/python -m pip install -c $(RLLIB)/constraints.txt -c constraints-rllib.txt -e '.[rllib,dev]'
	touch $@

test-rllib: $(RLLIB)/.installed ## run the tests of RLlib, and of contracts under its older gymnasium
	$(RLLIB)/bin/python -m pytest tests/training/test_rllib.py tests/agents/test_rllib_ppo.py \
		tests/env/test_wrappers.py tests/env/test_vector.py
	$(RLLIB)/bin/python -m pytest tests/env/test_conformance.py -k 'not SleepLLM or SleepLLM-Mini-v0'
	$(RLLIB)/bin/python -m pytest -m slow tests/clients/test_recipes.py -k RLlib

$(CLIENTS)/.installed: pyproject.toml constraints.txt constraints-clients.txt
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install $(TORCH_ARGS) -c constraints.txt torch
	$(CLIENTS)/bin/python -m pip install -c constraints.txt -c constraints-clients.txt -e '.[dev]' \
		'gymnasium[torch]' 'minari[create,hdf5]' torchrl skrl tianshou d3rlpy rl_zoo3 requests
	# Built from source with files that it downloads; where that fails, its tests are skipped.
	-$(CLIENTS)/bin/python -m pip install -c constraints-clients.txt --no-deps pufferlib
	touch $@

test-clients: $(CLIENTS)/.installed ## run other learning libraries on an environment, and the recipes of the docs
	$(CLIENTS)/bin/python -m pytest -m slow tests/clients

check: $(STAMP) ## format, lint and types, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboard: $(STAMP) ## tensorboard over runs/, with the demo's logs among them
	test -d runs/demo || $(MAKE) demo
	$(BIN)/tensorboard --logdir runs

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel

release-check: check docs-site test-clients ## beside the tests, what a release needs: checks, site, clients, files, the wheel alone
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_wheel.py

clean: ## remove what can be rebuilt (not .venv*, not runs)
	rm -rf build dist site .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +
