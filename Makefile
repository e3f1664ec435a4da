PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON314 ?= python3.14
BIN = .venv/bin
ARGS ?=

# Else every test process, and every fresh one that it starts, compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv lock run docs test test-slow fuzz matrix test-browser test-extras check bench bench-distil bench-full clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: .venv/.ready  ## make the virtual environment from requirements.lock

.venv/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v != (3, 11) and f"Python 3.11 is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

lock:  ## resolve pyproject.toml anew into requirements.lock
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/pip freeze --exclude-editable | sed -E 's/^torch==2.13.0.*/torch==2.13.0/' > requirements.lock
	touch .venv/.ready

run: venv  ## run the default federation; make run ARGS="seed=1 strategy/scorer=uniform"
	$(BIN)/python run.py $(ARGS)

test: venv check  ## checks and the test suite, a quarter of an hour on two cores
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: venv  ## all of a kind where `test` has one of each; learning, kills, Rays of their own
	$(BIN)/python -m pytest -m slow

fuzz: venv  ## 10,000 odd answers of one client through every strategy, about half an hour on one core
	$(BIN)/python -m tests.fuzzing 10000

matrix: venv  ## faults and bits 50 times on each pool, about an hour
	$(BIN)/python -m benchmarks.fault_matrix --times 50

test-browser: venv  ## of these TensorBoard and the report in a headless browser (Debian: chromium, chromium-driver)
	$(BIN)/python -m pytest -m slow -rs tests/test_browser.py

test-extras: .venv-extras/.ready  ## of these ONNX, W&B and MLflow, in a virtual environment that has them
	.venv-extras/bin/python -m pytest -m slow -rs tests/test_extras.py

.venv-extras/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-extras
	.venv-extras/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 setuptools
	.venv-extras/bin/pip install --quiet --disable-pip-version-check -e '.[dev,onnx,wandb,mlflow]' onnxruntime
	touch $@

docs: .venv-docs/.ready  ## the site of docs/, in site/; a broken link ends it
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "site/index.html; with its search: $(BIN)/python -m http.server --directory site"

.venv-docs/.ready: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@

check: venv  ## ruff, mypy and docstrings against signatures
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet clients strategies sim conf stillhouse run.py

.venv-pfl: .venv-pfl/.ready

.venv-pfl/.ready: benchmarks/pfl/requirements.txt
	$(PYTHON) -m venv .venv-pfl
	.venv-pfl/bin/pip install --quiet --disable-pip-version-check -r benchmarks/pfl/requirements.txt
	touch $@

.venv-blazefl: .venv-blazefl/.ready

.venv-blazefl/.ready: benchmarks/blazefl/requirements.txt
	$(PYTHON314) -m venv .venv-blazefl
	.venv-blazefl/bin/pip install --quiet --disable-pip-version-check -r benchmarks/blazefl/requirements.txt
	touch $@

bench: venv .venv-pfl  ## seconds per round beside the plain loop, Flower and pfl-research, 6 minutes
	$(BIN)/python -m benchmarks.rounds $(ARGS)

bench-distil: venv  ## a distillation round beside the plain loop, Flower and BlazeFL, 10 minutes; needs STILLHOUSE_DATA
	$(BIN)/python -m benchmarks.distil $(ARGS)

bench-full: venv .venv-pfl  ## every table of docs/benchmarks.md, about an hour and a half
	$(BIN)/python -m benchmarks.rounds --model cnn --repetitions 3
	$(BIN)/python -m benchmarks.rounds --model cnn --repetitions 3 --clients 10000
	$(BIN)/python -m benchmarks.rounds --model mlp --repetitions 3
	$(BIN)/python -m benchmarks.rounds --model lr --repetitions 3
	$(BIN)/python -m benchmarks.distil --repetitions 3
	$(BIN)/python -m benchmarks.distil --protocol digest
	$(BIN)/python -m benchmarks.idle
	$(BIN)/python -m benchmarks.idle --populations 1000,10000 --payload 114314
	$(BIN)/python -m benchmarks.profile fedavg --clients 1000 --cohort 100
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.probes

clean:  ## remove the virtual environment and caches
	rm -rf .venv .venv-docs .venv-extras .venv-pfl .venv-blazefl .mypy_cache .pytest_cache .ruff_cache .hypothesis
