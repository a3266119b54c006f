# make run    a model of generated Taobao data, trained in bfloat16
# make test   the tests (others: make test PYTEST_ARGS='-m slow', '-m cluster')
# make lint   ruff and the errors that pylint finds
# make docs   the Markdown as HTML pages; a link that leads nowhere is an error
# make fuzz   2,000 random and damaged files and bindings
# make sanitize  tests of the C++ kernels under address and undefined sanitizers
# make clean  removes what the others have made, except data and results
# PYTHON=python3.11 chooses the interpreter, and with it the TensorFlow.

PYTHON ?= $(shell for p in python3.7 python3.11 python3.10 python3.9; do \
    $$p -c '' 2>/dev/null && echo $$p && break; done)
NAME := $(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv/$(NAME)
BIN := $(VENV)/bin
PYTEST_ARGS ?= -m 'not slow and not cluster'
# One process per core. Each begins with its share of the tests, file by file, as
# the fixtures of a file are made once in a process; one that has done its share
# takes over from another, so that no core is idle at the end.
PYTEST_PROCESSES ?= -n auto --dist worksteal
LINT := .venv/lint
DOCS := .venv/docs

.PHONY: run test lint docs fuzz sanitize clean venv

run: venv
	@# The real rows, if someone put them there, else made ones.
	@$(BIN)/python tools/prepare_data.py --out data
	$(BIN)/python -m ple_estimator.run --gin_file=gin/bf16.gin \
	    --gin_bindings='Experiment.max_steps = 300'
	@echo 'Metrics: result/bf16/metrics.json; SavedModels: result/bf16/export;'
	@echo 'curves: $(BIN)/tensorboard --logdir=result'

test: venv
	$(BIN)/python -m pytest tests $(PYTEST_PROCESSES) $(PYTEST_ARGS)

lint: $(LINT)/installed
	$(LINT)/bin/ruff check .
	$(LINT)/bin/pylint -E -j 2 ple_estimator tools distribute_k8s

$(LINT)/installed: Makefile
	$(PYTHON) -m venv $(LINT)
	$(LINT)/bin/pip install --quiet ruff==0.17.6 pylint==3.3.9
	@touch $@

docs: $(DOCS)/installed
	$(DOCS)/bin/sphinx-build -W --keep-going -q -d $(DOCS)/doctrees -c docs \
	    . $(DOCS)/site
	@echo 'Pages: $(DOCS)/site/README.html'

# The extra `docs` of setup.py, in one state, and without TensorFlow.
$(DOCS)/installed: Makefile
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet sphinx==9.0.4 myst-parser==5.2.0 \
	    furo==2025.12.19
	@touch $@

FUZZ_CASES ?= 2000

fuzz: venv
	PLE_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest tests/fuzz --timeout=0

sanitize: venv
	$(BIN)/python tools/sanitize_kernels.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(VENV)/installed
	@TF_CPP_MIN_LOG_LEVEL=1 $(BIN)/python -W ignore -c "from \
	    ple_estimator.engine import compat; print('Engine: %s on $(NAME)' % \
	    compat.describe())"

$(VENV)/installed: setup.py
	@test -n '$(NAME)' || { echo 'No Python 3.7 or 3.9 to 3.11 found: install' \
	    'one, or name it: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	-$(BIN)/python -W ignore -m ple_estimator.engine.native
	@touch $@
