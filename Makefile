# make demo    set up, and run the example on this machine's processes
# make test    set up, and run all tests; as root on Debian also those on real schedulers
# make docs    build the documentation into docs/_build
# make bench   print the benchmarks' ratios; needs a Slurm, see benchmarks/README.rst
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

demo: $(VENV)/.demo
	cd examples/normalize && PATH="$(abspath $(BIN)):$$PATH" HPCPIPE_SITE=local hpcpipe run normalize.py
	@echo "Before and after: examples/normalize/norm_workdir/normalizefa/picture/before_after.png"

test:
	PYTHON="$(PYTHON)" tests/run.sh

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -q -b html docs docs/_build

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/all.py

# Not bin/python: without python3-venv, Debian leaves an environment that has no pip.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/pip setup.cfg examples/normalize/requirements.txt
	$(BIN)/pip install -q -e . -r examples/normalize/requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/bin/pip setup.cfg
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/bin/pip setup.cfg
	$(BIN)/pip install -q -e ".[docs]"
	touch $@

.PHONY: demo test docs bench
