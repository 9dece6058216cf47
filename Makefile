# make lab, make test: what each needs is installed into .venv, pinned by constraints.txt, the first time.
PYTHON ?= python3
BIN = .venv/bin
COG = cog --verbosity=1 -I tools -p "from figures import *" --check-fail-msg="run make figures"
PAGES = README.md $(wildcard docs/*.md docs/*/*.md) src/reslab/recipe/shipped/measured.py

.PHONY: lab test check format figures docs ledger notebook constraints package lowest clean

lab: .venv/lab
	$(BIN)/reslab lab

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/$(COG) --check $(PAGES)

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Insert figures, tables and help texts into README and docs: see tools/figures.py.
figures: .venv/installed
	$(BIN)/$(COG) -r $(PAGES)

INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# PyTorch comes first and pinned: whatever asks for it more loosely then finds it installed.
.venv/lab: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) --editable '.[report]'
	touch $@

.venv/installed: .venv/lab
	$(INSTALL) --editable '.[dev]'
	touch $@

# The site of the documentation: open build/site/index.html.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Keep the ledger's finished runs in results/ledger, and write docs/ledger.md from what is there.
ledger: .venv/installed
	$(BIN)/python tools/ledger.py
	$(BIN)/$(COG) -r docs/ledger.md

# The notebook in both languages, executed: make notebook RUN=runs/lab-resnet32-seed0 EXTENDED=runs/fifteen
notebook: .venv/installed
	$(BIN)/python tools/lab_notebook.py $(RUN) $(EXTENDED)

# Every version that is installed now, as the new pins.
constraints: .venv/installed
	$(BIN)/python -m pip list --format=freeze --exclude reslab --exclude pip --exclude setuptools | sed 's/+cpu$$//' > constraints.txt

# An sdist and a wheel, installed into an empty environment and run outside of the repository.
package:
	tools/package.sh

# The lowest versions that pyproject.toml allows, in an environment of their own: the tests of security, a small training.
lowest:
	tools/lowest.sh

clean:
	rm -rf .venv build dist src/*.egg-info
