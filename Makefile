# make demo: see it work.  make test: all tests.  make lint: what CI checks besides.
# make bench: the bare kernels' speed, with Google Benchmark.
# make sanitizers: tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
# make load: ten minutes of mixed work on eight threads; LOAD_SECONDS=60 for one.
# make fuzz: mutated models and random nodes; FUZZ_SECONDS=60 for each, FUZZ_SEED=0.
# make aarch64: the kernels compiled for 64-bit Arm and tested under an emulator.
# make matrix: tests with old and new releases of onnxruntime, onnx and the others; MATRIX=quick only both ends.
# make cuda: the library with the kernels for NVIDIA GPUs; make cuda CUDA=90 for one architecture.
# make cuda-test, cuda-sanitize, cuda-bench: on a machine with a GPU, with PYTHON's torch or cupy; see docs/cuda.md.
# onnxruntime would report the models of tests, fuzzers and benchmarks.
export ORT_DISABLE_TELEMETRY := 1

VENV := .venv
BIN := $(VENV)/bin
# Most modules of what is installed are never imported.
PIP := $(BIN)/python -m pip install --quiet --no-compile
SOURCES := $(shell find rmsnorm_onnx custom_ops -type f -not -path '*/__pycache__/*') pyproject.toml README.md
CXX_FILES = $(shell git ls-files 'custom_ops/*.cc' 'custom_ops/*.h' 'custom_ops/*.cu' 'custom_ops/*.cuh')

.PHONY: demo test lint format bench sanitizers load fuzz matrix aarch64 cuda cuda-test cuda-sanitize cuda-bench clean

$(BIN)/python:
	python3 -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(PIP) '.[cpu]'
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) --group test
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(PIP) --group lint
	touch $@

demo: $(VENV)/installed
	$(BIN)/python models/demo.py

test: $(VENV)/tested
	$(BIN)/pytest -n auto --dist worksteal --quiet

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(VENV)/linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

# In the tests' folder and with their CMake, so that the kernels are not compiled again.
bench: export PATH := $(PATH):$(CURDIR)/$(BIN)
bench: $(VENV)/tested
	cmake -S custom_ops -B build/kernels -G Ninja -DRMSNORM_BENCH=ON
	cmake --build build/kernels --target rmsnorm_bench
	build/kernels/rmsnorm_bench $(BENCH)

sanitizers: $(VENV)/tested
	$(BIN)/python tests/sanitizers.py

LOAD_SECONDS := 600
load: $(VENV)/tested
	$(BIN)/python tests/load.py $(LOAD_SECONDS)

FUZZ_SECONDS := 60
FUZZ_SEED := 0
fuzz: $(VENV)/tested
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# PYTHONS may name more interpreters: "3.11 3.10 3.13" or paths, the first for most rows.
PYTHONS :=
$(VENV)/matrix: $(VENV)/tested
	$(PIP) --group matrix
	touch $@

matrix: export PATH := $(PATH):$(CURDIR)/$(BIN)
matrix: $(VENV)/matrix
	$(BIN)/python tests/matrix.py $(MATRIX:%=--%) $(PYTHONS:%=--python %)

ARM := build/aarch64
aarch64: $(VENV)/tested
	@command -v aarch64-linux-gnu-g++ qemu-aarch64 >/dev/null || \
	  { echo "make aarch64 needs a cross compiler and an emulator: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	$(BIN)/cmake -S custom_ops -B $(ARM) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python -DRMSNORM_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake
	$(BIN)/cmake --build $(ARM)
	RMSNORM_KERNELS="qemu-aarch64 $(ARM)/kernels_server" $(BIN)/pytest -n auto --quiet tests/test_kernels.py tests/test_kernel_bits.py

# Beside the library without, whose kernels it shares. `make test` then tests it too.
cuda: $(VENV)/tested
	command -v nvcc >/dev/null || $(PIP) --group cuda-build
	$(BIN)/cmake -S custom_ops -B build/kernels -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python -DRMSNORM_CUDA=ON -DRMSNORM_CUDA_STRICT=ON -DCMAKE_CUDA_ARCHITECTURES="$(CUDA)"
	$(BIN)/cmake --build build/kernels --target rmsnorm_onnx_cuda

# A Python with torch or cupy: usually the machine's own, and nothing is installed.
PYTHON := python3
# After an invalid access nothing more runs on the GPU in that process.
CUDA_TESTS := $(PYTHON) -m pytest --quiet --maxfail=20 -p no:cacheprovider tests/test_cuda_device.py
cuda-test cuda-sanitize cuda-bench: export PYTHONPATH := $(CURDIR):$(PYTHONPATH)
cuda-test:
	$(CUDA_TESTS)
	$(CUDA_TESTS:test_cuda_device.py=test_cuda_sessions.py) -rs

# A few shapes of every kind; cupy's buffers are allocations of their own, and initcheck needs outputs unwritten.
CUDA_SANITIZERS := memcheck racecheck initcheck synccheck
SANITIZED := captured_graph or (where_tensors_begin and (128 or 5003 or 70)) or (number_of_rows and (128 or 5003 or 40001))
cuda-sanitize:
	@command -v compute-sanitizer >/dev/null || \
	  { echo "make cuda-sanitize needs compute-sanitizer, part of the CUDA toolkit: put its bin folder on PATH"; exit 1; }
	$(PYTHON) tests/cuda_device.py
	for tool in $(CUDA_SANITIZERS); do \
	  echo "compute-sanitizer --tool $$tool"; \
	  if [ $$tool = initcheck ]; then export RMSNORM_UNPOISONED=1; else unset RMSNORM_UNPOISONED; fi; \
	  RMSNORM_CUDA_MEMORY=cupy compute-sanitizer --tool $$tool --error-exitcode 1 --target-processes all \
	    $(CUDA_TESTS) -k "$(SANITIZED)" || exit 1; \
	done

CUDA_RESULTS := build/cuda-bench
cuda-bench:
	$(PYTHON) custom_ops/bench/cuda.py $(CUDA_RESULTS)

clean:
	rm -rf $(VENV) build dist
