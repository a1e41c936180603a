PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH  := .bench-venv
SHARED ?= ../shared/data
DEMO   := demo
# the same on every machine: what the demo reads and writes lies in one folder
RUN    := PLIFCTL_CACHE_DIR=$(DEMO)/data_cache PLIFCTL_RUNS_DIR=$(DEMO)/runs $(BIN)/plifctl

MATRIX ?= 3.12 3.13

.PHONY: help demo test lint unit test-browser test-gpu test-matrix faults reference bench-env bench-prepare bench-loader bench-train bench-gpu golden clean

help:           ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(READY)  ## set up .venv, then the whole way on the embedded data set: recordings to report
	@mkdir -p $(DEMO)
	$(RUN) synthesize $(DEMO)/raw
	$(RUN) prepare synthetic-gesture --T 8 --raw $(DEMO)/raw
	$(RUN) train demo
	$(RUN) eval last
	$(RUN) validate demo
	@echo
	$(RUN) report --table demo
	@echo
	@echo "written:"
	@ls -1d $(DEMO)/raw $(DEMO)/data_cache/*/*.h5
	@ls -1td $(DEMO)/runs/* | head -n 2  # of this time: train, validate

test: lint unit ## set up .venv, then ruff, mypy --strict and every test

lint: $(READY)  ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY)  ## pytest only
	$(BIN)/python -m pytest

test-browser: $(READY) ## the page in Chromium; installs Playwright into .venv, Chromium comes from the system (Debian: chromium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(BIN)/python -m pytest tests/browser

test-gpu: $(READY) ## the kernels on a GPU, against the definition; .venv needs torch's build with CUDA
	TRITON_INTERPRET=0 $(BIN)/python -m pytest tests/gpu

# where pip is not offered torch's CPU build for such a Python, it takes the one with CUDA: gigabytes
test-matrix: $(MATRIX:%=test-python-%) ## every test under other Pythons, each in its own environment: MATRIX="3.12 3.13"

test-python-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest

.venv-%/.ready: pyproject.toml constraints.txt
	python$* -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

.PRECIOUS: .venv-%/.ready

faults: $(READY) ## the whole batteries of faults: kills, failing disks, flipped bits, many processes; takes long
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[faults]"
	$(BIN)/python -m pytest tests/faults --full --timeout 7200

reference: $(READY) ## write docs/reference.md from --help, and the tables of results into the pages
	$(BIN)/python docs/make_reference.py > docs/reference.md
	$(BIN)/python docs/make_tables.py

# Peers have an environment of their own: SpikingJelly asks for torchvision, torchaudio and SciencePlots, none of which
# its functions measured here need, so it is installed without what it asks for; loguru and matplotlib it does need.
$(BENCH)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . \
		tonic==1.7.0 loguru matplotlib pandas fvcore tqdm
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps spikingjelly==2.0.0 \
		neurobench==2.3.0 snntorch==1.0.0
	@touch $@

bench-env: $(BENCH)/.ready ## set up .bench-venv: this project and the peers it is measured beside

bench-prepare: $(BENCH)/.ready ## raw recordings to frames on disk, beside SpikingJelly and tonic
	$(BENCH)/bin/python -m benchmarks.prepare --shared $(SHARED)

bench-loader: $(BENCH)/.ready ## batches from the cache, beside SpikingJelly and tonic
	$(BENCH)/bin/python -m benchmarks.loader --shared $(SHARED)

golden: $(BENCH)/.ready ## write what tests/golden compares with, by SpikingJelly and NeuroBench, anew
	PYTHONPATH=tests $(BENCH)/bin/python -m golden.make_spikingjelly
	PYTHONPATH=tests $(BENCH)/bin/python -m golden.make_neurobench

bench-train: $(BENCH)/.ready ## training and inference on the CPU, beside SpikingJelly and the bare products
	$(BENCH)/bin/python -m benchmarks.train_cpu

bench-gpu: $(BENCH)/.ready ## training on a GPU, beside SpikingJelly; without one it only shows that it runs
	$(BENCH)/bin/python -m benchmarks.train_gpu

clean:          ## remove the environment and everything generated
	rm -rf $(VENV) $(MATRIX:%=.venv-%) $(BENCH) $(DEMO) .mypy_cache .ruff_cache .pytest_cache
