# `make help` lists the targets. Targets are separate so that they can be combined: make setup check
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
export PATH := $(abspath $(BIN)):$(PATH)
# idle threads sleep: much faster than spinning on a machine that is busy with something else
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types imports test test-slow test-kill test-dist test-gpu arch structure mutants golden smoke bench trials growth docs check \
        sft rm ppo run base-model clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## an environment in .venv with the tested set of packages (again: nothing to do)

# torch first and alone: it is the big one, and what is already there satisfies it. Python compiles
# what is imported, a small part of it, at the first use.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed; name one: make setup PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

fmt: ## format the code and autofix with ruff
	ruff format .
	ruff check --fix .

lint: ## formatting and lint, nothing changed
	ruff format --check .
	ruff check .

types: ## pyright on the packages without torch
	pyright

imports: ## the rules of which package may import which
	lint-imports

test: ## the fast tests: CPU, no network
	OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test-slow: ## tests that take minutes, some of them with several processes
	pytest -m slow

test-kill: ## 200 kills -9, each followed by a run that must end as if nothing had been (half an hour)
	python tests/slow/kill_campaign.py --kills 200 --jobs 2 --out kill_campaign.json

test-dist: ## tests with several processes
	pytest -m "dist and not slow" -n 2 --dist loadscope --no-loadscope-reorder \
		$$(grep -rl --include='test_*.py' 'mark\.dist' tests | sort)

test-gpu: ## tests that need a CUDA device
	pytest -m gpu

arch: ## every causal type of transformers, tiny; writes the table of docs/models.md (ten minutes)
	pytest -m "arch or not arch" tests/behaviour/test_architectures.py
	python -m tests.support.models_table

structure: ## measures of the code's structure, as in docs/architecture.md
	python -m tests.support.structure

mutants: ## put in one-line faults, one at a time: the fast tests must notice each (ARGS="--only sft")
	python tests/mutants/run.py $(ARGS)

golden: ## compare with the reference numbers in tests/golden
	pytest -k golden

smoke: ## all three stages and the evaluation through the command line, under a minute
	rlhf run experiment=smoke name=smoke $(ARGS)

bench: ## side by side with TRL and transformers; never part of the tests (ARGS=--main: less, see docs/benchmarks.md)
	python benchmarks/run.py $(ARGS)

trials: ## every trial of the command line, and the table of docs/trials.md (ARGS="--only D --quick" for a part)
	python -m tests.trials --write docs/trials.md $(ARGS)

docs: ## the tables of docs/configuration.md, from the comments in conf/
	python -m tests.support.configuration_page

growth: ## time and memory against batch, length and model size: docs/growth.svg, a few minutes
	python benchmarks/growth.py $(ARGS)

check: ## everything that must hold before a commit; what one core does stands beside another
	@$(MAKE) -j2 --no-print-directory --output-sync types lint imports
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-dist

sft: ## step 1: imitate the demonstrations     (ARGS="key=value ...")
	rlhf run stage=sft $(ARGS)

rm: ## step 2: learn which response people prefer
	rlhf run stage=rm $(ARGS)

ppo: ## step 3: raise the score, close to the SFT model
	rlhf run stage=ppo $(ARGS)

run: ## all steps and the closing table
	rlhf run $(ARGS)

base-model: ## train the embedded models again: make base-model SIZE=tiny_l; all three without SIZE
	python -m rlhf_cli.tiny_world.base_model $(SIZE)

clean: ## caches and builds; runs/ and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
