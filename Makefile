# make        what there is to make
# Run inside an environment that has the project: pip install -e '.[dev]'
.DEFAULT_GOAL := help
.PHONY: help setup export readme check browser test docs prepare paper clean

PYTHON  ?= python3
WORKERS ?= 1

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup:  ## install the project, editable, with what tests need
	$(PYTHON) -m pip install -e '.[dev]'

export:  ## notebooks cleaned, modules written to sae_ft/
	nbdev_clean
	nbdev_export

readme:  ## README.md from nbs/index.ipynb
	$(PYTHON) tests/current.py readme

check:  ## modules, cleaned notebooks and README.md are current
	$(PYTHON) tests/current.py check

browser:  ## chromium, which the tests of JupyterLab drive: from Debian, or from playwright
	$(PYTHON) tests/browser.py install

test: check browser  ## all tests: what is current, every notebook, pytest
	nbdev_test --n_workers $(WORKERS) --do_print --timing
	$(PYTHON) -m pytest -q tests

docs:  ## every notebook as a page in _docs/, readable offline
	$(PYTHON) tests/docs.py

prepare: export readme test  ## all of it, before a commit

paper:  ## remake every table and figure: the grid of runs (hours; goes on where it stopped), then the notebooks
	$(PYTHON) -c "from sae_ft.sweep import paper; print(paper(workers=$(WORKERS)))"
	$(PYTHON) -c "from sae_ft.features import record; record(); from sae_ft.widgets import record_trade_off; record_trade_off()"
	cd nbs && jupyter nbconvert --to notebook --execute --inplace 06_drift.ipynb 07_shifts.ipynb 08_features.ipynb 10_widgets.ipynb index.ipynb
	$(MAKE) export readme

clean:  ## remove what builds and tests leave (runs/ stays)
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .artefacts _docs out.ipynb
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf
