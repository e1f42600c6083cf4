# `make setup` works from a clean clone and again on a warm one; every other target does it first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test slow lint check fix bench figures studies studies-full ablation clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]' --group dev
	touch $@

demo: setup  ## the whole system on this machine
	$(BIN)/smoothing-proxy demo

test: setup  ## the normal suite, minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: setup  ## long simulations and soaks
	$(BIN)/python -m pytest -m slow --timeout=3600

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## what CI runs

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

figures: setup  ## what the shipped denoisers prove, from ../shared/data: an hour or two
	$(BIN)/python benchmarks/certify_shipped.py cifar10 --radii 0 0.25 0.5 --n 5000
	$(BIN)/python benchmarks/certify_shipped.py natural --sigma 0.25
	$(BIN)/python benchmarks/certify_shipped.py natural --sigma 0.12
	$(BIN)/python benchmarks/certify_shipped.py speed
	$(BIN)/python benchmarks/certify_live.py --draws 100

studies: setup  ## the three defences in tables, from ../shared/data: an hour or two
	$(BIN)/python benchmarks/compare_defences.py

studies-full: setup  ## the same with ResNet18 and more pictures: hours on a GPU
	$(BIN)/python benchmarks/compare_defences.py --full

bench: setup  ## every benchmark; figures land in benchmarks/results
	for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

ablation: setup  ## which denoiser for the same training time: hours
	$(BIN)/python benchmarks/train_denoisers.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
