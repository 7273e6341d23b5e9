# One name for each thing one does with a checkout. `make` prints this list; the logic is elsewhere.
PY  := .venv/bin/python
BIN := .venv/bin
ARCH ?= $(shell uname -m)

.PHONY: help setup testsetup demo test fmt check lint types arch unit integration e2e conformance bench image
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:         ## print this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup:        ## system packages, .venv and pyengine in it; quick when nothing is missing
	@./bootstrap

testsetup:    ## the same, with what the tests need
	@./bootstrap test

demo: setup   ## boot the machine, run a container in it, compare host, machine and container
	@$(BIN)/pyengine demo

test: testsetup check integration e2e  ## set up, then every check and test

fmt:          ## rewrite files in the one style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint types arch unit  ## what must be green before a commit

lint:         ## style and likely bugs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:        ## mypy --strict over code and tests; what runs on other hosts, for their platforms too
	$(BIN)/mypy
	MYPYPATH=images/vm $(BIN)/mypy images/vm/build.py
	$(BIN)/mypy --platform darwin -p hostagent -m vmguest.protocol
	$(BIN)/mypy --platform win32 -p hostagent -m vmguest.protocol

arch:         ## who may import whom
	$(BIN)/lint-imports

unit:         ## no root, no network, under a minute
	$(PY) -m pytest tests/unit

integration:  ## real namespaces, mounts, cgroups and bridges of this machine; needs root
	$(PY) -m pytest tests/integration

e2e:          ## boots a machine under QEMU, runs containers in it, kills things
	$(PY) -m pytest tests/e2e

conformance:  ## suites of others, from the check-outs in the directory PYENGINE_SUITES, and podman and dockerd over pyengine-oci; needs root
	$(PY) -m pytest tests/conformance
	$(PY) -m tests.conformance

bench:        ## what a machine costs against a container; writes benchmarks/out/
	$(BIN)/pyengine bench startup

image:        ## build the machine's image for ARCH and print its directory
	$(PY) images/vm/build.py --arch $(ARCH) --output out/images
