# make run    set up .venv if needed and run the default experiment
# make test   set up .venv if needed and run all checks and tests, in ten minutes on two cores
# make help   what else there is
PYTHON ?= python3
CORES ?= all
CONFIG ?=
VENV := .venv
READY := $(VENV)/.installed
SNAKEMAKE := $(VENV)/bin/snakemake --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG))
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 8 --durations 20

.PHONY: run test test-cluster lint docs dist release-check help clean

run: $(READY)
	$(SNAKEMAKE)
	@sed -n 's|^run: *\([^ #]*\).*|Report: results/\1/report.html|p' $(lastword config.yaml $(CONFIG))

test: lint
	$(PYTEST) -m "not cluster" --dist worksteal

test-cluster: $(READY)
	$(PYTEST) -m cluster --dist loadfile --no-loadscope-reorder -rs

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile rules
	$(VENV)/bin/lint-imports
	$(VENV)/bin/snakemake --lint

dist: $(READY)
	rm -rf dist build/lib
	$(VENV)/bin/python -m build --no-isolation --outdir dist

release-check: dist docs
	PYTHON=$(PYTHON) .ci/release-check

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "The documentation: build/site/index.html"

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make run CONFIG=config/cifar10.yaml CORES=4   another experiment, or fewer cores"
	@echo "make test-cluster                             tests with SLURM, containers, torchrun, a browser; many kills"
	@echo "make docs                                     the documentation as a site, in build/site"
	@echo "make dist                                     wheel and sdist, in dist/"
	@echo "make release-check                            both, installed and run elsewhere; licences; minutes"
	@echo "make clean                                    remove .venv (results stay)"

clean:
	rm -rf $(VENV)

# The stamp is written last, so an interrupted installation is done again.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "libranas needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { \
	  echo "No venv module: on Debian or Ubuntu install it with: apt install python3-venv" >&2; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@
