# Everything here works on a machine with only Python (3.10 to 3.13, with venv) and make: .venv is made and filled on first use.
# Another Python:      PYTHON=python3.12 make test
# One notebook:        make test-one NB=nbs/00_core.ipynb
# Slow cells as well:  make test FLAGS=slow

PYTHON ?= python3
PY := .venv/bin/python
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help venv test test-one test-site demo docs notebooks export readme hooks clean distclean

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

venv: ## make .venv and install k2nb in it, ready for development
	@command -v "$(PYTHON)" >/dev/null || { echo "k2nb: there is no $(PYTHON) here; install Python 3.10 to 3.13, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" tools/bootstrap.py $(if $(filter file,$(origin PYTHON)),,--switch)

test: venv ## export, drift, clean, README, ruff, every notebook, the wheel; ends with "N passed, M failed"
	@$(PY) tools/test.py $(if $(FLAGS),--flags $(FLAGS))

test-one: venv ## test one notebook: make test-one NB=nbs/00_core.ipynb
	@test -n "$(NB)" || { echo "name a notebook: make test-one NB=nbs/00_core.ipynb" >&2; exit 1; }
	@$(PY) tools/test.py $(NB) $(if $(FLAGS),--flags $(FLAGS))

docs: venv ## build the site from the notebooks into docs/; open docs/index.html
	@$(PY) tools/site/builder.py

test-site: venv ## every test, then the site: built anew, its links followed, and opened in a browser where there is one
	@$(PY) tools/test.py --site

demo: venv ## the first tutorial in the terminal; leaves demo/report.html
	@$(PY) tools/demo.py

notebooks: venv ## execute notebooks in place and keep their outputs: all, or NB=...
	@$(PY) tools/run_notebooks.py $(NB) $(if $(FLAGS),--flags $(FLAGS))

export: venv ## clean the notebooks and write k2nb/ from them
	@.venv/bin/nbdev_clean
	@.venv/bin/nbdev_export

readme: venv ## write README.md from nbs/index.ipynb
	@$(PY) tools/readme.py

hooks: venv ## install the git hook that cleans and exports before each commit
	@.venv/bin/pre-commit install

clean: ## remove what was built and cached
	rm -rf build dist demo *.egg-info .ruff_cache _proc
	find k2nb nbs tools -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

distclean: clean ## remove .venv too
	rm -rf .venv
