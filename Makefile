# Brickless: the one front door. `make help` is made from the comments behind the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
B ?= footprint
T ?=
SAMPLE ?=
BOOT ?= 200
LIVES ?= 2
MACHINES ?= emulator pc virt-arm64-fat
RECORDINGS ?= build/recordings

.PHONY: help setup go-tools up demo test test-unit test-contract test-flow test-ns test-vm test-boards test-chaos chaos check \
  bench sim lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install what is missing: Debian packages by name, a hash-locked virtual environment
$(STAMP): packages.txt requirements/dev.txt pyproject.toml tools/bootstrap
	PYTHON=$(PYTHON) VENV=$(VENV) tools/bootstrap
	@touch $@

up: setup ## a hub and two emulated devices on this machine; deploys a real app to them and stays up
	$(BIN)/brickless up

demo: setup ## what `up` does, from start to end, and exits with a status
	$(BIN)/brickless demo

go-tools: ## the Go programs that tests use (an S3 server, Helm), built once into .cache/bin
	tools/go-tools

test: setup go-tools check ## every tier that CI runs
	tools/test all

test-unit: setup ## no root, no network, under a minute (T=path for one)
	tools/test unit $(T)

test-contract: setup ## the formats' vectors and the wire transcripts
	tools/test contract $(T)

test-flow: setup ## real processes on loopback
	tools/test flow $(T)

test-ns: setup ## real mounts, namespaces, containers (root)
	tools/test ns $(T)

test-vm: setup ## the runtime as PID 1 in QEMU
	tools/test vm $(T)

test-chaos: setup ## power cuts and faults in QEMU, sampled
	tools/test chaos $(T)

chaos: setup ## every power cut of a device's life, judged; some really booted (SAMPLE=300, BOOT=200, RESUME=1 to go on)
	$(BIN)/brickless chaos $(MACHINES:%=--machine %) --lives $(LIVES) $(if $(SAMPLE),--sample $(SAMPLE)) \
	  --boot $(BOOT) --keep $(RECORDINGS) $(if $(RESUME),--resume)

test-boards: setup ## every way in which a BSP update fails, on real boards in QEMU
	BRICKLESS_BOARDS=all tools/test vm tests/vm/test_boards.py

check: setup ## format, lint, types, arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## one benchmark (B=NAME): a table, and one JSON object as the last line
	@$(BIN)/python -m bench.$(subst -,_,$(B))

sim: setup ## fleets in virtual time: 100 seeds of each scenario (S="--scenario bad --seeds 5" for less)
	$(BIN)/python -m brickless.testkit.fleet_campaign $(S)

lock: $(VENV)/bin/uv ## write requirements/dev.txt and hub.txt anew from pyproject.toml, with hashes and without any index
	$(BIN)/uv pip compile -q --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --extra dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements/dev.txt \
	  --no-emit-find-links --no-header --extra hub pyproject.toml -o requirements/hub.txt

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q uv

clean: ## remove what `make` made here (the cache of packages and images too)
	rm -rf $(VENV) .cache build
