# make demo: see it work.  make test: all tests.  make lint: what CI checks besides.
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rmsnorm_onnx custom_ops -type f -not -path '*/__pycache__/*') pyproject.toml README.md
CXX_FILES = $(shell git ls-files 'custom_ops/*.cc' 'custom_ops/*.h')

.PHONY: demo test lint format clean

$(BIN)/python:
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[cpu]'
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet '.[cpu,test]'
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(BIN)/python -m pip install --quiet '.[cpu,lint]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python models/demo.py

test: $(VENV)/tested
	$(BIN)/pytest -n auto --quiet

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(VENV)/linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf $(VENV) build dist
