# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VENV_FOREIGN ?= .venv-foreign

.PHONY: demo test browser faults foreign install clean

demo: $(VENV)/installed
	$(BIN)/bascule run digits
	$(BIN)/bascule report digits

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=2 $(BIN)/pytest

# A browser for the tests of the report's page, where the system has no Chromium; without one they are skipped.
browser: $(VENV)/installed-dev
	$(BIN)/playwright install chromium

# Kills, damage and nonsense for about twenty minutes; docs/reliability.md has the figures.
faults: $(VENV)/installed-dev
	$(BIN)/python tests/faults/lab.py

# Files and networks that timm, torchvision and Lightning make themselves; `make test` skips these tests.
foreign: $(VENV_FOREIGN)/installed
	OMP_NUM_THREADS=2 $(VENV_FOREIGN)/bin/python -m pytest tests/foreign tests/models tests/explain

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(VENV_FOREIGN)/installed: pyproject.toml constraints-foreign.txt
	test -x $(VENV_FOREIGN)/bin/python || $(PYTHON) -m venv $(VENV_FOREIGN)
	$(VENV_FOREIGN)/bin/python -m pip install --quiet -c constraints-foreign.txt -e ".[foreign]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV_FOREIGN) build dist src/*.egg-info
