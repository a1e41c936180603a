PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY  := $(VENV)/.ready
BENCH  := .bench-venv
LOWEST := .lowest-venv
SHARED ?= ../shared/data
MATRIX ?= 3.12 3.13
INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
# tests run exported networks with it; what these need of its dependencies is in pyproject.toml
SPIKINGJELLY := --no-deps spikingjelly==2.0.0

# each worker process imports torch; tests use one thread each (tests/conftest.py)
PYTEST := -m pytest -n auto --maxprocesses 8 --dist worksteal
QUICK  := -m "not slow and not long and not subprocess and not real"

.PHONY: help demo test test-fast test-slow lint unit test-browser test-gpu test-matrix slurm-start slurm-stop faults lowest docs dist hooks reference \
	bench-env bench-prepare bench-formats bench-loader bench-train bench-events bench-shares bench-gpu golden clean

help:           ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -e ".[dev]"
	$(BIN)/python $(INSTALL) $(SPIKINGJELLY)
	@touch $@

demo: $(READY)  ## set up .venv, then the full pipeline on simulated gestures: recordings to report
	@mkdir -p runs
	$(BIN)/plifctl synthesize data_cache/raw/synthetic-gesture
	$(BIN)/plifctl prepare synthetic-gesture --T 8 --raw data_cache/raw/synthetic-gesture
	$(BIN)/plifctl train demo
	$(BIN)/plifctl validate demo
	$(BIN)/plifctl report --table demo
	@echo
	@echo "The cache is in data_cache/, both runs are in runs/. Next, type:"
	@echo
	@echo "  source $(BIN)/activate          # plifctl is on the PATH from here on"
	@echo "  plifctl runs                       # the two runs"
	@echo "  plifctl eval last                  # accuracy by class and time step, firing rates, operations"
	@echo "  plifctl report --html report       # everything as one page: report/index.html"

# without the files of compiled modules, each worker and each command that a test starts would compile all modules again
test unit test-fast test-slow: export PYTHONDONTWRITEBYTECODE :=

test: lint unit ## set up .venv, then ruff, mypy --strict and every test that is not slow

test-fast: $(READY) ## the inner loop: quick unit tests
	$(BIN)/python $(PYTEST) tests/unit plifctl $(QUICK)

test-slow: $(READY) ## the slow tests: kills, several ranks, failing disks, the kernels in Triton's interpreter
	$(BIN)/python $(PYTEST) -m slow

lint: $(READY)  ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY)  ## pytest only
	$(BIN)/python $(PYTEST) -m "not slow"

test-browser: $(READY) ## the page in Chromium; installs Playwright into .venv, Chromium comes from the system (Debian: chromium)
	$(BIN)/python $(INSTALL) -e ".[browser]"
	$(BIN)/python -m pytest tests/browser

# both together take 15 minutes of a GPU; each figure is on the disk as soon as it is measured: make test-gpu bench-gpu RESULTS=DIR
RESULTS ?= gpu-results
TEST_MINUTES ?= 5
BENCH_MINUTES ?= 9
GPU_TESTS := tests/gpu/test_selection.py tests/gpu/test_triton.py tests/gpu/test_training.py

test-gpu: export TRITON_INTERPRET := 0
test-gpu: $(READY) ## the kernels on a GPU, against the definition; .venv needs torch's build with CUDA
	@mkdir -p $(RESULTS)
	timeout $(TEST_MINUTES)m $(BIN)/python -m pytest -vv $(GPU_TESTS) > $(RESULTS)/test-gpu.txt 2>&1; code=$$?; \
	tail -n 40 $(RESULTS)/test-gpu.txt; \
	[ $$code = 124 ] && echo "the time is over; what was not tested: TEST_MINUTES=30" && exit 0; exit $$code

# where no CPU build of torch is available for a Python version, pip installs the one with CUDA: gigabytes
test-matrix: $(MATRIX:%=test-python-%) ## every test under other Pythons, each in its own environment: MATRIX="3.12 3.13"

test-python-%: .venv-%/.ready
	.venv-$*/bin/python $(PYTEST)

.venv-%/.ready: pyproject.toml constraints.txt
	python$* -m venv .venv-$*
	.venv-$*/bin/python $(INSTALL) -e ".[test]"
	.venv-$*/bin/python $(INSTALL) $(SPIKINGJELLY)
	@touch $@

.PRECIOUS: .venv-%/.ready

faults: $(READY) ## the full batteries of fault tests: kills, failing disks, flipped bits, many processes; takes hours
	$(BIN)/python $(INSTALL) -e ".[faults]"
	$(BIN)/python $(PYTEST) tests/faults --full --timeout 7200 -vv

# the tests of SLURM start one of their own unless this one runs; it needs root and Debian's packages slurmctld, slurmd,
# slurm-client and munge
SLURM ?= /tmp/plifctl-slurm
slurm-start:    ## start a SLURM of one node on this machine, all of it in one folder: SLURM=/tmp/plifctl-slurm
	@tests/cluster/slurm.sh start $(SLURM)

slurm-stop:     ## stop it, and remove its folder
	@tests/cluster/slurm.sh stop $(SLURM)

# the lower bounds of pyproject.toml, torch excepted: an environment with the oldest release of each, and the quick tests
lowest: $(LOWEST)/.ready ## the quick tests with the oldest dependencies that pyproject.toml allows
	$(LOWEST)/bin/python $(PYTEST) tests/unit tests/api tests/cli plifctl $(QUICK) -W ignore::DeprecationWarning

$(LOWEST)/.ready: pyproject.toml constraints.txt .ci/lowest_constraints.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) .ci/lowest_constraints.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e ".[test]"
	@touch $@

docs: $(READY)  ## the documentation as a site: site/index.html
	$(BIN)/python $(INSTALL) -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: $(READY)  ## wheel and sdist in dist/, checked: metadata, content, and the wheel in a new environment
	$(BIN)/python $(INSTALL) -e ".[release]"
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_dist.py dist

hooks: $(READY) ## checks before each commit (pre-commit)
	$(BIN)/python $(INSTALL) -e ".[hooks]"
	$(BIN)/pre-commit install

reference: $(READY) ## write docs/reference.md from --help, docs/paper-and-code.md, and the tables of results into the pages
	$(BIN)/python docs/make_reference.py > docs/reference.md
	$(BIN)/python docs/make_sources.py > docs/paper-and-code.md
	$(BIN)/python docs/make_tables.py

# A separate environment for the peers. SpikingJelly is installed without its dependencies, because the functions measured
# here do not need torchvision, torchaudio and SciencePlots; they do need loguru and matplotlib.
$(BENCH)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(INSTALL) -e . \
		tonic==1.7.0 faery==0.7.1 evt3==0.4.1 expelliarmus==1.1.12 brainevent==0.2.1 loguru matplotlib pandas fvcore tqdm
	$(BENCH)/bin/python $(INSTALL) $(SPIKINGJELLY) neurobench==2.3.0 snntorch==1.0.0
	@touch $@

bench-env: $(BENCH)/.ready ## set up .bench-venv: this project and the peers it is compared with

bench-prepare: $(BENCH)/.ready ## raw recordings to frames on disk, compared with SpikingJelly and tonic
	$(BENCH)/bin/python -m benchmarks.prepare --shared $(SHARED)

bench-formats: $(READY) ## decoding of every format, from a file's content to events
	PYTHONPATH=tests $(BIN)/python -m benchmarks.formats

bench-loader: $(BENCH)/.ready ## batches from the cache, compared with SpikingJelly and tonic
	$(BENCH)/bin/python -m benchmarks.loader --shared $(SHARED)

golden: $(BENCH)/.ready ## write the golden values of tests/golden again, with SpikingJelly and NeuroBench
	PYTHONPATH=tests $(BENCH)/bin/python -m golden.make_spikingjelly
	PYTHONPATH=tests $(BENCH)/bin/python -m golden.make_neurobench

bench-train: $(BENCH)/.ready ## training and inference on the CPU, compared with SpikingJelly and with the products alone
	$(BENCH)/bin/python -m benchmarks.train_cpu

bench-events: $(BENCH)/.ready ## event-driven layers on the CPU, compared with dense ones and with other libraries
	$(BENCH)/bin/python -m benchmarks.event_driven

# trains three networks first, for a few epochs on real data; they are kept, so that a second call only measures
KEEP ?= .bench-shares
bench-shares: $(BENCH)/.ready ## each layer's share of a training step on the CPU, dense and event-driven
	$(BENCH)/bin/python -m benchmarks.shares --shared $(SHARED) --keep $(KEEP)

bench-gpu: $(BENCH)/.ready ## training on a GPU, compared with SpikingJelly; without a GPU it only shows that it runs
	$(BENCH)/bin/python -m benchmarks.train_gpu --results $(RESULTS) --minutes $(BENCH_MINUTES)

clean:          ## remove the environment and everything generated
	rm -rf $(VENV) $(MATRIX:%=.venv-%) $(BENCH) $(LOWEST) site dist .mypy_cache .ruff_cache .pytest_cache
