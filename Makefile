# make        lists what can be made
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
SEEDS ?= 1,2,3
REV ?= HEAD
SIZES ?=
FOLDS ?=
KIND ?= classifier
DTYPE ?=
ROWS ?=
A ?= HEAD
B ?= .
FAIL_BELOW ?=
DEVICE ?=
PULL ?=
AGAINST ?=
CURVE = $(if $(SIZES),--sizes $(SIZES)) $(if $(filter-out 0,$(FOLDS)),--folds)
export NPROC ?= 1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no virtual environment: apt install python3-venv"; exit 1; }
	$(VENV)/bin/python -m pip install --requirement requirements.txt --constraint constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt requirements-modelscope.txt requirements-tables.txt requirements-serve.txt
	$(VENV)/bin/python -m pip install --requirement requirements-dev.txt --constraint constraints.txt
	touch $@

install: $(VENV)/installed  ## .venv with the pinned packages that a user needs

$(VENV)/installed-serve: $(VENV)/installed requirements-serve.txt
	$(VENV)/bin/python -m pip install --requirement requirements-serve.txt --constraint constraints.txt
	touch $@

install-dev: $(VENV)/installed-dev  ## those that tests, lint, types and figures need, too

constraints: install-dev  ## install the newest packages that the pinned ones need, and pin them in constraints.txt
	python -m pip install --upgrade --upgrade-strategy eager --requirement requirements-dev.txt
	python -m tools.constraints

repro: install  ## run what has changed: data, benchmark, training, selection, evaluation; NPROC=2: on two GPUs; PULL=--pull: fetch what a remote has
	python -m stages.repro $(PULL)

repair: install  ## after a kill: put the last whole dvc.lock back, and run nothing
	python -m stages.repro --repair

mend: repair

seeds: install  ## the same run with other seeds: mean and standard deviation, in metrics/seeds.json
	python -m stages.repro --repair
	python -m stages.seeds --check
	dvc exp run --queue --set-param 'train.seed=$(SEEDS)'
	dvc exp run --run-all
	python -m stages.seeds

folds: install  ## the model out of fold over the whole pool (five trainings), in data/folds and metrics/folds.json
	python -m stages.repro prepare probe
	python -m stages.collect --check
	dvc exp run --queue --set-param 'prepare.fold=0,1,2,3,4'
	dvc exp run --run-all
	python -m stages.collect
	python -m stages.repro --single-item folds

curve: install  ## when does fine-tuning pay? all systems by texts of train, in metrics/curve.json; SIZES=200,400,all FOLDS=1
	python -m stages.repro prepare
	python -m stages.curve --queue $(CURVE)
	dvc exp run --run-all
	python -m stages.curve $(CURVE)

compare: install  ## model against model on common rows, params and data that differ; A=main B=HEAD, or folders with checkouts
	python -m stages.compare $(A) $(B) $(if $(FAIL_BELOW),--fail-below $(FAIL_BELOW))

up-to-date: install  ## does dvc.lock belong to this code, data and params? Nothing runs, and no output has to be here
	@mkdir -p runs
	set -o pipefail; dvc repro --dry --allow-missing | tee runs/up-to-date.txt
	@! grep -q "^Running stage" runs/up-to-date.txt || { echo "dvc.lock is older than code, data or params: run make repro, or make lock, and commit"; exit 1; }

verify: install  ## run the pipeline, and compare with the committed figures; DEVICE=cuda: evaluation of the pinned adapter
	python -m stages.verify $(if $(DEVICE),--device $(DEVICE))

report: install  ## runs/report.html: the report with commit, timings, marked sentences; AGAINST=REV: an earlier run beside it
	python -m stages.report.here $(if $(AGAINST),--against $(AGAINST))

export: install  ## the trained model for use without this project; KIND=classifier, merged, adapter, onnx or gguf
	python -m stages.export $(KIND) --out exports/$(KIND) $(if $(DTYPE),--dtype $(DTYPE)) $(if $(ROWS),--rows $(ROWS))

serve: $(VENV)/installed-serve  ## the selected classifier over HTTP, with a page, at http://127.0.0.1:8000
	python -m stages.serve

test: install-dev  ## the tests, but for the slow ones: a process for each core
	python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m "not slow and not faults"

test-slow: install-dev  ## real DVC runs, several processes, other environments, many rows: 16 to 21 minutes on two cores
	python -m pytest -n logical --dist loadfile --no-loadscope-reorder -m slow

test-faults: install-dev  ## kills, full disks, torn states and hostile files: 45 minutes
	python -m pytest -m faults

lint: install-dev  ## lint and format
	ruff check .
	ruff format --check .

types: install-dev  ## types, by mypy
	mypy

audit: install-dev  ## known holes in the packages (asks the registry), and risky code
	python -m pip install --quiet bandit==1.9.4 pip-audit==2.10.1
	bandit --quiet --configfile pyproject.toml --recursive stages benchmarks tools
	pip-audit --requirement requirements.txt --requirement requirements-modelscope.txt --requirement requirements-tables.txt --requirement requirements-serve.txt --requirement constraints.txt --no-deps --disable-pip

figures: install-dev  ## draw docs/img from metrics/ and results/
	python -m tools.figures

same: install-dev  ## does the code of REV (HEAD) write the same bytes as the working tree's? OTHER=…: as that revision's
	python -m tools.same $(REV) $(OTHER)

lock: install-dev  ## renew the code's hashes in dvc.lock, where this code writes the same bytes as the code that ran
	python -m tools.lock

check: lint types test  ## lint, format, types, tests

.PHONY: help install install-dev constraints repro repair mend seeds folds curve compare up-to-date verify report export serve test test-slow test-faults lint types audit figures same lock check
