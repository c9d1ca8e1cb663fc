# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VENV_FOREIGN ?= .venv-foreign
VENV_DOCS ?= .venv-docs
VENV_LOWEST ?= .venv-lowest
VENV_NEWEST ?= .venv-newest
VENV_WHEEL ?= .venv-wheel
# Files of tests at the same time; most tests are small, and one core does them as fast as two.
JOBS ?= 2

.PHONY: demo test docs browser lowest newest faults foreign wheel try-wheel tutorials install clean

demo: $(VENV)/installed
	$(BIN)/bascule run digits
	$(BIN)/bascule report digits

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile

# The documentation as a site, in docs/_build/html; a warning is an error. docs/reference and docs/checkout are made by it.
docs: $(VENV_DOCS)/installed
	$(VENV_DOCS)/bin/sphinx-build -W --keep-going -q -E -b html -d docs/_build/doctrees docs docs/_build/html

# A browser for the tests of the report's page, where the system has no Chromium; without one they are skipped.
browser: $(VENV)/installed-dev
	$(BIN)/playwright install chromium

# The tests with the lowest and with the newest versions that pyproject.toml allows, each in an environment of its own.
lowest: $(VENV_LOWEST)/installed
	.ci/lowest $(VENV_LOWEST)/bin/python

newest: $(VENV_NEWEST)/installed
	OMP_NUM_THREADS=1 $(VENV_NEWEST)/bin/python -m pytest -n $(JOBS) --dist loadfile

# Kills, damage and nonsense for about twenty minutes; docs/reliability.md has the figures.
faults: $(VENV)/installed-dev
	$(BIN)/python tests/faults/lab.py

# Files and networks that timm, torchvision and Lightning make themselves; `make test` skips these tests.
foreign: $(VENV_FOREIGN)/installed
	OMP_NUM_THREADS=2 $(VENV_FOREIGN)/bin/python -m pytest tests/foreign tests/models tests/explanations

# Wheel and sdist in dist/, looked through.
wheel: $(VENV_WHEEL)/installed
	rm -rf build dist
	$(VENV_WHEEL)/bin/python -m build
	$(VENV_WHEEL)/bin/check-wheel-contents dist
	$(VENV_WHEEL)/bin/twine check --strict dist/*

# The wheel as a stranger has it: in an environment with nothing else, away from the checkout.
try-wheel: wheel
	PYTHON=$(PYTHON) .ci/try-wheel

# The tutorials run anew, with their output written into them: about five minutes.
tutorials: $(VENV_FOREIGN)/installed
	$(VENV_FOREIGN)/bin/python -m pip install --quiet -c constraints-foreign.txt -c constraints-docs.txt nbclient ipykernel ipywidgets
	$(VENV_FOREIGN)/bin/python docs/tutorials/renew.py

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

$(VENV_LOWEST)/installed: pyproject.toml constraints-lowest.txt
	test -x $(VENV_LOWEST)/bin/python || $(PYTHON) -m venv $(VENV_LOWEST)
	$(VENV_LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt -e ".[dev]"
	touch $@

$(VENV_NEWEST)/installed: pyproject.toml
	test -x $(VENV_NEWEST)/bin/python || $(PYTHON) -m venv $(VENV_NEWEST)
	$(VENV_NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[dev]"
	touch $@

$(VENV_WHEEL)/installed:
	test -x $(VENV_WHEEL)/bin/python || $(PYTHON) -m venv $(VENV_WHEEL)
	$(VENV_WHEEL)/bin/python -m pip install --quiet build check-wheel-contents twine
	touch $@

clean:
	rm -rf $(VENV) $(VENV_FOREIGN) $(VENV_DOCS) $(VENV_LOWEST) $(VENV_NEWEST) $(VENV_WHEEL) build dist docs/_build docs/reference docs/checkout src/*.egg-info
