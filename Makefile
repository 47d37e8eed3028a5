# make repro   from a fresh clone to build/site: environment, data, pipeline, pages
# make test    the same environment, then lint and tests; make test-all: types, long tests and all attacks, too
# Both are safe to repeat, and need the network for packages only.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PYTEST := python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONPATH :=
# the pipeline asks no one's permission and sends nothing home
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help env repro plan dry test test-all harness maps lab ab demo results world world-pilots world-report verify clean

help:           ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/: [^#]*## /\t/' | expand -t 16

env: $(VENV)/.installed  ## build .venv from requirements.lock
$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "== environment: $(VENV) from requirements.lock (minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; say make PYTHON=..."; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

data: $(VENV)/.installed data.dvc
	@echo "== data: from the repository's own store"
	@dvc pull --quiet data
	@touch data

runtime: $(VENV)/.installed runtime.dvc
	@echo "== runtime: of the page that paints, from the repository's own store"
	@dvc pull --quiet runtime
	@touch runtime

repro: env data  ## run the pipeline of params.yaml, compare its pages with results/<profile>
	@python -m atelier check
	@echo "== pipeline: dvc repro, several studies at once where cores are free"
	@python -m atelier.warm python -m atelier.pipeline.repro
	@python -m atelier.pipeline.compare

plan: env       ## what a profile lacks and costs, without running it: PROFILE=paper, and CARD=H100 or SECONDS=30
	@python -m atelier plan $(if $(PROFILE),profiles/$(PROFILE).yaml) \
		$(if $(CARD),--card "$(CARD)") $(if $(SECONDS),--seconds "$(SECONDS)")

dry: env        ## the profile paper without its models and data: a made folder, shrunk numbers, every stage: FOLDER=made
	@python scripts/made_paper.py $(or $(FOLDER),made)

results: env    ## publish the pages that the pipeline built in results/<profile>; ONLY="STUDY ...": those that have ended
	@python -m atelier.pipeline.render results $(if $(ONLY),--only $(ONLY))

test: env data  ## lint and tests, the smoke pipeline among them, and a tenth of the attacks
	@$(MAKE) --no-print-directory lint
	@echo "== tests"
	@$(PYTEST) -m "not long" $(TESTS)
	@echo "== attacks, a tenth of them"
	@python -m tests.harness --short

test-all: env data  ## the same, types, the long tests (the world in miniature, the wheel, a new study) and all attacks and kills
	@$(MAKE) --no-print-directory lint types
	@echo "== tests"
	@$(PYTEST) $(TESTS)
	@echo "== attacks and kills"
	@python -m tests.harness

.PHONY: lint types
lint:
	@echo "== lint"
	@ruff check . && ruff format --check .
types:
	@echo "== types"
	@mypy

harness: env data  ## all attacks and kills, half an hour or more; prints a table
	@echo "== attacks and kills"
	@python -m tests.harness

maps: env     ## draw docs/pipeline.svg and docs/library.svg
	@python -m atelier.pipeline.map docs

lab: env data   ## JupyterLab on notebooks/, saving clean files
	@jupyter lab --config=src/atelier/pipeline/jupyter_config.py notebooks

ab: env         ## a page on which people compare pictures blind: A=FOLDER B=FOLDER; without them the study's own
	@python -m atelier pixel_space ab $(if $(A),"$(A)") $(if $(B),"$(B)")

demo: env runtime  ## a page that paints with the base in a browser, once make repro has run: OUT=build/demo
	@python -m atelier demo $(or $(OUT),build/demo)

world: env      ## make the world anew: pictures, base, evaluator, trunk (hours on a CPU), and store it
	@echo "== world: paint, train, measure"
	@cd world && dvc repro
	@echo "== world: ship"
	@rm -rf data data-store/files && cp -R world/build/data data && cp -R world/build/report data/report
	@cp data/report/report.md docs/world_report.md
	@dvc add --quiet data && dvc push --quiet data

world-report: env data  ## measure the bars of the shipped world and print them
	@cd world && python -m atelier.world report ../data

world-pilots: env data  ## train other bases for a short while and print what they would gain (an hour and a half)
	@cd world && python -m atelier.world pilots ../data
	@cp world/build/report/pilots.md docs/world_pilots.md

verify: env data  ## run the pipeline in a clone and compare with results/<profile>
	@python -m atelier.pipeline.compare --clone

clean:          ## remove what the pipeline built and its scratch; keep data, results and .venv
	@rm -rf build .scratch world/build world/.scratch .mypy_cache .ruff_cache .hypothesis
