# make        what there is to make
# Run inside an environment that has the project: pip install -e '.[dev]'
.DEFAULT_GOAL := help
.PHONY: help setup export map readme check browser test docs prepare paper clean

PYTHON  ?= python3
WORKERS ?= 2

# each of WORKERS processes computes with one thread
ONE_THREAD = OMP_NUM_THREADS=1

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup:  ## install the project, editable, with what tests need
	$(PYTHON) -m pip install -e '.[dev]'

export:  ## notebooks cleaned, modules written to sae_ft/
	nbdev_clean
	$(PYTHON) tests/states.py
	nbdev_export

map:  ## the map of nbs/index.ipynb from the imports, its tables from the summaries
	$(PYTHON) tests/layout.py

readme:  ## README.md from nbs/index.ipynb
	$(PYTHON) tests/current.py readme

check:  ## modules, cleaned notebooks, map and README.md are current, lines are short
	$(PYTHON) tests/current.py check
	ruff check nbs tests setup.py

browser:  ## chromium, which the tests of JupyterLab drive: from Debian, or from playwright
	$(PYTHON) tests/browser.py install

test: export SAE_FT_CACHE = $(CURDIR)/.artefacts/cache
test: check browser  ## all tests: what is current, every notebook, pytest
	$(ONE_THREAD) nbdev_test --n_workers $(WORKERS) --do_print --timing
	$(ONE_THREAD) $(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile --durations=20 tests

docs:  ## a site in _docs/, readable offline: every notebook as a page, all modules on one, search
	$(PYTHON) tests/docs.py

prepare: export map readme test  ## all of it, before a commit

# notebooks whose tables and figures come from the records of runs
REMADE = 06_drift 07_shifts 07_shifts_figures 07_shifts_paired 07_shifts_paths 07_shifts_heads 07_shifts_robustness \
         11_inside_activations 11_inside_conceptors 11_inside_saes 11_inside_steering 11_inside_suppression \
         11_inside_words 11_paper 11_paper_records 12_tasks_ten index

paper:  ## remake every table and figure: the grid of runs (hours; goes on where it stopped), then the notebooks
	$(PYTHON) -c "from sae_ft.paper import paper; print(paper(workers=$(WORKERS)))"
	$(PYTHON) tests/trials/variants.py --workers $(WORKERS)
	$(PYTHON) -c "from sae_ft.paper_records import record_features, record_trade_off; record_features(); record_trade_off()"
	cd nbs && jupyter nbconvert --to notebook --execute --inplace $(REMADE:=.ipynb)
	$(MAKE) export map readme

clean:  ## remove what builds and tests leave (runs/ stays)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .artefacts _docs out.ipynb
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf
