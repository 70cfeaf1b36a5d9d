# Two commands do everything: `make demo` and `make test`.  Each builds its own environment first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready

.PHONY: demo test lint mutants bench gpu gpu-test gpu-sanitize gpu-bench clean

demo: $(READY)  ## segment photographs with two decoders and write demo.png
	$(BIN)/python -m tconv demo

QUICK := not slow and not torch and not onnx and not nvrtc and not gpu
test: $(READY)  ## everything that needs neither PyTorch, CuPy nor minutes
	$(BIN)/python -m pytest -n auto --dist loadfile -m "$(QUICK)"

lint: $(READY)  ## style and types
	$(BIN)/python -m pip install --quiet "mypy>=1.11" "ruff>=0.9"
	$(BIN)/ruff check .
	$(BIN)/mypy

mutants: $(READY)  ## break the sources on purpose; the tests must notice every time
	$(BIN)/python tests/mutants.py $(MUTANTS)

bench: $(READY)  ## the layers of real models beside PyTorch and ONNX Runtime, where installed
	$(BIN)/python -m tconv bench --cpu

# On a machine with an NVIDIA GPU, with the CuPy, PyTorch and pytest that PYTHON has: no environment
# of its own.  Each part ends within ten minutes, or sooner where asked (make gpu TEST_SECONDS=200), and
# none keeps the others from running.
TEST_SECONDS  ?= 480
TOOL_SECONDS  ?= 140
BENCH_SECONDS ?= 510
gpu gpu-test gpu-sanitize gpu-bench: export PYTHONPATH = src
RESULTS ?= benchmarks/results
# Interrupted when its time is up, pytest still says what has failed; before, where a test hangs.
# Libraries there may warn.
LIMIT      := timeout --signal INT --kill-after 20
GPU_PYTEST := $(PYTHON) -m pytest -W default -o faulthandler_timeout=100 -m gpu tests
gpu:  ## the kernels on a GPU: right, clean, and how fast
	$(MAKE) --jobs 1 --keep-going gpu-test gpu-sanitize gpu-bench

gpu-test:  ## every kernel and element type against the oracle; thousands of kernels to compile
	$(LIMIT) --foreground $(TEST_SECONDS) $(GPU_PYTEST) \
	    $$($(PYTHON) -c "import xdist" 2>/dev/null && echo '-n auto')

FEW := (vocoder or (named_cases and groups) or blocks_share or single_channels_are_exact \
    or (other_orders and square) or (direct_channels_last and vectors) \
    or (adjoint_is_exact and (fcn or centernet))) \
    and not infinity and not everywhere and not and_type
# Libraries probe the driver for what it may lack: what the API refuses is no fault of a kernel.  Not
# in the foreground: there pytest, a child of the sanitizer, would not be interrupted.
gpu-sanitize: export TCONV_OWN_MEMORY = 1
gpu-sanitize:  ## a few cases of every kernel under compute-sanitizer
	failed=; \
	for tool in memcheck racecheck initcheck synccheck; do \
	    $(LIMIT) $(TOOL_SECONDS) compute-sanitizer --tool $$tool --error-exitcode 1 --report-api-errors no \
	        --launch-timeout 120 $(GPU_PYTEST) -q -k "$(FEW)" || failed="$$failed $$tool"; \
	done; \
	test -z "$$failed" || { echo "not clean:$$failed"; exit 1; }

gpu-bench:  ## every layer and element type beside PyTorch's cuDNN; a second run goes on
	$(PYTHON) -m tconv bench --gpu --gradients --seconds $(BENCH_SECONDS) \
	    --json $(RESULTS)/gpu.json --pictures $(RESULTS)

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'tconv needs Python 3.11 or later: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@
