# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA ?= ../shared/data

# No usage statistics, no hook of another package manager around workers.
export RAY_USAGE_STATS_ENABLED := 0
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export PYTHONUNBUFFERED := 1

# Files of tests side by side, each whole in one process: its fixtures (a store, a trained model) are made once.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo check test acceptance bench bench-scale learn learn-all soak lint install compiled lock clean

# A target's line tells its purpose behind two number signs.
help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## what everything here needs, into .venv

# Compiled once, at installation: every worker of every run imports the same libraries, and some machines keep
# Python from writing what it compiles.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "vidproc needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Say which: make PYTHON=python3.11 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^uv==//p' constraints.txt)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --only-binary :all: --no-binary vidproc -e '.[dev]'
	touch $@

# Tests start some hundred processes, and where Python may not write what it compiles each would compile it all again.
compiled: $(INSTALLED)
	@$(BIN)/python -m compileall -q vidproc tests

demo: $(INSTALLED) ## make videos, index them, ask and draw: into demo/
	$(BIN)/vidproc demo demo

# Tests of pure logic, for while one works: no Ray, no S3 server, no training, hardly another process.
PURE := tests/test_documents.py tests/test_imports.py tests/test_makefile.py tests/test_settings.py tests/test_text.py \
  tests/ask/test_sql_guard.py \
  tests/learn/test_labels.py tests/learn/test_scores.py tests/models/test_models_weights.py \
  tests/models/test_temporal.py tests/run/test_pipeline.py tests/run/test_remarks.py tests/runtime/test_retry.py \
  tests/tables/test_link.py tests/tables/test_schema.py tests/video/test_h264.py tests/video/test_plan.py \
  tests/video/test_probe.py

check: $(INSTALLED) lint compiled ## lint, types and the tests of pure logic: under two minutes
	$(BIN)/python -m pytest $(BESIDE) -q -m 'not acceptance and not slow' -k 'not on_s3 and not from_s3' $(PURE)

test: $(INSTALLED) lint compiled ## lint, types and all tests but the long and those of real data
	$(BIN)/python -m pytest $(BESIDE) -m 'not acceptance and not slow'

acceptance: $(INSTALLED) compiled ## the tests of real data: make acceptance DATA=FOLDER
	VIDPROC_ACCEPTANCE_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest $(BESIDE) -m 'acceptance and not slow' tests

# The rivals want other versions of shared libraries, so they live in an environment of their own.
RIVALS := .venv-rivals
$(RIVALS)/.installed: tests/benchmarks/rivals-requirements.txt $(INSTALLED)
	test -x $(RIVALS)/bin/python || $(PYTHON) -m venv $(RIVALS)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(RIVALS)/bin/python --only-binary :all: -r tests/benchmarks/rivals-requirements.txt
	touch $@

# make bench BENCH="--repetitions 1" takes half an hour instead of one and a half.
bench: $(INSTALLED) $(RIVALS)/.installed ## measure vidproc beside others: an hour and a half
	$(BIN)/python -m tests.benchmarks $(BENCH)

bench-scale: $(INSTALLED) ## measure the driver on a large archive
	$(BIN)/python -m tests.benchmarks driver memory second-run scale

# The long form of what `make test` proves, and what needs a quiet machine.
soak: $(INSTALLED) ## the long forms of the tests: hours
	$(BIN)/python -m tests.soak --kills 200
	$(BIN)/python -m pytest -m 'slow and not acceptance'
	if test -d "$(DATA)/videos"; then \
	  VIDPROC_ACCEPTANCE_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest -m 'slow and acceptance' tests; \
	else echo "there is no $(DATA)/videos: mutants of real files were left out"; fi

learn: $(INSTALLED) ## train the models of the demo anew
	$(BIN)/python jobs/learn_demo.py

# With R3D, R(2+1)D, S3D and MC3, which take minutes each on one core.
learn-all: $(INSTALLED) ## the same with the large video networks
	$(BIN)/python jobs/learn_demo.py --all

lint: $(INSTALLED) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A new set of versions, the same on every platform; run it on purpose, then run everything.
lock: $(INSTALLED) ## choose new versions of all libraries
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --only-binary :all: \
	  --no-header --no-annotate --upgrade pyproject.toml --output-file constraints.txt

clean: ## remove what make made
	rm -rf $(VENV) demo dist build .mypy_cache .ruff_cache .pytest_cache
