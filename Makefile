# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VENV_FOREIGN ?= .venv-foreign
VENV_DOCS ?= .venv-docs

.PHONY: demo test docs faults foreign install clean

demo: $(VENV)/installed
	$(BIN)/bascule run digits
	$(BIN)/bascule report digits

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=2 $(BIN)/pytest

# The documentation as a site, in docs/_build/html; a warning is an error. docs/reference and docs/checkout are made by it.
docs: $(VENV_DOCS)/installed
	$(VENV_DOCS)/bin/sphinx-build -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html

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

$(VENV_DOCS)/installed: pyproject.toml constraints.txt constraints-docs.txt
	test -x $(VENV_DOCS)/bin/python || $(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install --quiet -c constraints.txt -c constraints-docs.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV_FOREIGN) $(VENV_DOCS) build dist docs/_build docs/reference docs/checkout src/*.egg-info
