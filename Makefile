# Each verb works on a fresh clone with Python >= 3.11 and make alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCALE := $(VENV)/.ready-for-scale

.PHONY: demo test test-slow test-scale test-gpu lint release-check bench accuracy doors soak hostile scale torture mutants
.PHONY: catalogues notebooks transcript clean

# The whole road on drawn dogs, offline, in minutes.
demo: $(READY)
	$(BIN)/cliptune demo --output-dir demo_run

# Two at a time, each on one thread.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not scale"

# What takes long: kills, a whole demo, the transcript of the documents, a sample of `make torture`.
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

# Clusters of Ray, storage servers, training in several processes; a quarter of an hour on two cores.
test-scale: $(SCALE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m scale

# On a machine with a GPU and a torch for it: training there, and what answers afterwards.
test-gpu: $(READY)
	CLIPTUNE_TEST_DEVICE=cuda $(BIN)/python -m pytest -n 4 -m "not slow and not scale" \
	  tests/model tests/training tests/inference

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Both notebooks, each cell, in a temporary folder; two minutes. Their outputs are renewed by
# .venv/bin/python notebooks/execute.py --update
notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	$(BIN)/python notebooks/execute.py

# The commands of docs/first-hour.md in an empty folder, and what they print now into both languages.
transcript: $(READY)
	$(BIN)/python tests/transcript.py --update docs/first-hour.md docs/first-hour.zh-CN.md

# sdist and wheel, each installed where nothing else is: metadata, demo, tests, licences; ten minutes.
# Another Python too: python release/check.py --python python3.13
release-check:
	$(PYTHON) release/check.py $(RELEASE)

# The site, English and Chinese, offline: build/docs/index.html. A warning is an error.
DOCS := $(VENV)/.ready-for-docs
.PHONY: docs
docs: $(DOCS)
	$(BIN)/python docs/site/make_site.py
$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Made anew only when what is to be installed changes.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(SCALE): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scale]'
	touch $@

# The texts that are shown in other languages: found in code, pages and --help, and compiled.
catalogues: $(READY)
	$(BIN)/python release/catalogues.py

# Speed as ratios, side by side with other ways; a quarter of an hour on two cores.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py

# Classifiers from few photos beside the recipes that people cite; half an hour on two cores.
# On photos: .venv/bin/python benchmarks/accuracy.py --model CLIP --data FOLDER PROMPT
accuracy: $(READY)
	$(BIN)/python benchmarks/accuracy.py --output-dir accuracy_run

# One answer through every door: Python, command line, ONNX, HTTP; two minutes on two cores.
# On photos: .venv/bin/python benchmarks/doors.py RUN --photos FOLDER
doors: $(READY)
	$(BIN)/python benchmarks/doors.py

# `cliptune serve` under load, its worker killed and its checkpoint changed each minute; half an hour.
soak: $(READY)
	$(BIN)/python benchmarks/serving/soak.py

# Ten thousand requests that mean no good, to a server of drawings; ten minutes on two cores.
hostile: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hostile]'
	$(BIN)/python benchmarks/serving/hostile.py

# What holds beyond one machine, each on its own: rate, kills, memory, storage, processes, pairing.
# Hours on two cores; in benchmarks/scale/ each has options for less.
scale: $(SCALE)
	for each in rate kills storage processes costs memory; do \
	  PYTHONPATH=benchmarks $(BIN)/python benchmarks/scale/$$each.py || exit 1; done
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/scale/pairing.py 1000000 2000000 5000000 10000000

# Kills, failing disks, hostile files, long runs; three quarters of an hour on two cores. Needs gcc.
torture: $(READY)
	$(BIN)/python benchmarks/torture/run.py

# Small changes to the arithmetic that answers rest on, one at a time: the tests must notice each.
# Hours on two cores. One module: .venv/bin/mutmut run 'cliptune.training.optim*'
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python -m mutmut results

clean:
	rm -rf $(VENV) demo_run accuracy_run mutants build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests code scripts -name __pycache__ -type d -prune -exec rm -rf {} +
