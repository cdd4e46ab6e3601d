# make repro: everything from nothing. make test: the checks that every change must pass.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := -c constraints/$$($(BIN)/python -c "import sys; print(*sys.version_info[:2], sep='.')").txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro resume test lint check-slow env summary milestone clean

repro: env
	python -m ccai check
	dvc repro
	python -m ccai summary

resume: env
	python -m ccai resume

test: $(BIN)/.dev lint
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

check-slow: $(BIN)/.dev
	python -m pytest -m slow

lint: $(BIN)/.dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

summary:
	python -m ccai summary

milestone:
	python -m ccai milestone

env: $(BIN)/.installed

$(BIN)/.installed: requirements.txt pyproject.toml $(wildcard constraints/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements.txt $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

$(BIN)/.dev: $(BIN)/.installed requirements-inspect.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-review.txt -r requirements-inspect.txt -r requirements-dev.txt $(CONSTRAINTS)
	touch $@

clean:
	rm -rf $(VENV)
