# Two commands matter to a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs bench clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.core            ## install and run the demonstration on a simulated world
	$(BIN)/ciscribe demo

test: $(VENV)/.dev             ## the test suite
	$(BIN)/pytest

check: $(VENV)/.dev            ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest

docs: $(VENV)/.dev             ## execute every code block of the documentation
	$(BIN)/pytest tests/test_docs.py

bench: $(VENV)/.dev            ## speed beside the peers, one run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/pip install --quiet --no-deps bpnet-lite==1.1.0  # its dependency MACS3 compiles for minutes, and is not needed
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/windows.py
	$(BIN)/python benchmarks/convolutions.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
