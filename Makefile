# make smoke | test | check | bench: what CI runs, on any machine with Python 3.11 or later, pip and gcc.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# gpu on a machine with CUDA 13: see docs/install.md
VARIANT ?= cpu
BIN := .venv/bin
SMOKE := .smoke
# folders census_income and kuairand_pure with the published files
SOURCE ?= raw

.PHONY: setup smoke test check format bench accuracy s3-server s3-server-stop clean

setup: .venv/installed-$(VARIANT)

.venv/installed-$(VARIANT): requirements/$(VARIANT).txt requirements/common.txt requirements/dev.txt requirements/constraints.txt requirements/fbgemm_cpu/pyproject.toml pyproject.toml
	@echo "setting up .venv: a minute or two"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/$(VARIANT).txt -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

smoke: setup  ## the main job, from a generated log to an evaluated checkpoint
	rm -rf $(SMOKE)
	$(BIN)/polytower generate ecommerce --out $(SMOKE)/log --examples 120000
	$(BIN)/polytower train ecommerce data.root=$(SMOKE)/log run.uri=$(SMOKE)/run --workers 2

# Two processes, a file of tests at a time; in the order of their names, which has the long ones first.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/polytower bench lookup --out $(SMOKE)/lookup.json
	$(BIN)/polytower bench input --out $(SMOKE)/input.json
	$(BIN)/polytower bench step --out $(SMOKE)/step.json

accuracy: setup  ## docs/accuracy.md, from raw files in $(SOURCE): hours
	$(BIN)/polytower bench accuracy --source $(SOURCE) --out runs/accuracy --report docs/accuracy.md

s3-server:  ## a real S3 server on loopback (Debian, root), for the tests with marker s3
	tests/helpers/s3_server.sh start .s3

s3-server-stop:
	tests/helpers/s3_server.sh stop .s3

clean:
	rm -rf .venv $(SMOKE) build *.egg-info
