# Two commands: `make demo` and `make test`. Each sets up .venv first, from Python and pip alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# The site, the export of models and the libraries that read them, for docs and test-all.
EXTRAS := $(VENV)/extras-installed
# The maintained fork of the OpenMMLab packages, for test-all.
ONEDL := .venv-onedl
export MPLBACKEND := Agg
# Two processes of one thread each: faster on two cores than one process of two threads. Tests that
# share a trained model stay together (see tests/conftest.py). In one process, as a debugger needs
# it: make test ARGS='-n 0 -k NAME'.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadgroup --durations=10
test test-all: export OMP_NUM_THREADS := 1

.PHONY: help demo bench test test-all docs lint format clean

help:
	@echo 'make demo      train SimCLR, IP-IRM and controls on the embedded images; table and page'
	@echo "make test      all tests but the slow ones, in minutes; some: make test ARGS='-k NAME'"
	@echo 'make test-all  all tests, also with the maintained fork (onedl-*), in a second .venv'
	@echo "make bench     time what has a benchmark, in about eight minutes; some: make bench ARGS='--only views'"
	@echo 'make docs      build the site from docs/, for a browser'
	@echo 'make lint      ruff and mypy'
	@echo 'make clean     remove .venv, .venv-onedl, work_dirs and the site'

# Made again when the pins change.
$(STAMP): requirements/pinned.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'error: the pinned versions need Python 3.11 or newer; name one: make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	    { echo 'error: Python lacks venv; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Installing into $(VENV) (once; some minutes, most of it PyTorch) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/pinned.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -W ignore projects/laptop/demo.py $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -W ignore benchmarks/run.py $(ARGS)

test: $(STAMP)
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(STAMP) $(EXTRAS) $(ONEDL)/installed
	IPIRM_ONEDL_PYTHON=$(ONEDL)/bin/python $(PYTEST) $(ARGS)

$(EXTRAS): $(STAMP) requirements/extras.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/extras.txt
	@touch $@

$(ONEDL)/installed: requirements/onedl.txt
	@echo 'Installing the fork into $(ONEDL) (once) ...'
	@$(PYTHON) -m venv $(ONEDL)
	@$(ONEDL)/bin/python -m pip install -qq --disable-pip-version-check -r requirements/onedl.txt
	@$(ONEDL)/bin/python -m pip install -qq --disable-pip-version-check --no-deps mmcv-lite==2.2.0
	@touch $@

docs: $(EXTRAS)
	@$(BIN)/python -W ignore -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'the site is docs/_build/html/index.html'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(ONEDL) work_dirs docs/_build
