# One line per target. Every target makes its own .venv if there is none. On Windows: run it from Git Bash.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
STAMP := .venv/installed
.DEFAULT_GOAL := setup

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

.PHONY: help setup demo images test coverage lint types words check bench fuzz crashtest postgres browser cfg docs site dist clean

setup: $(STAMP)  ## make .venv with the package (editable) and the developers' tools

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --editable . --group dev
	$(BIN)/python -m pip install --quiet --no-deps --group albumentations
	touch $(STAMP)

demo: $(STAMP)  ## train on synthetic images until it finds things, then find things
	$(BIN)/python examples/demo.py

images: $(STAMP)  ## run the demo, and make the two images of README.md from its output
	$(BIN)/python examples/readme_images.py

test: $(STAMP)  ## the quick test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

coverage: $(STAMP)  ## the quick test suite, and which lines and branches it runs: build/coverage/index.html
	COVERAGE_FILE=$(CURDIR)/.coverage OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered --cov-report=html

lint: $(STAMP)  ## style, formatting, import layers, words
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/python tools/words.py

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

words: $(STAMP)  ## words to avoid, and what to write instead (the list is in tools/words.py)
	$(BIN)/python tools/words.py

check: lint types test  ## what every change must pass

bench: $(STAMP)  ## speed tables; PEER=path/to/venv compares with that venv's ultralytics
	$(BIN)/python -m benchmarks $(if $(PEER),--peer $(PEER))

fuzz: $(STAMP)  ## test with random label files, YAML, images and checkpoints, for some minutes
	FUZZ_EXAMPLES=1500 $(BIN)/python -m pytest -q tests/test_fuzz.py

crashtest: $(STAMP)  ## kill small trainings 400 times, resume them, compare the results; about 6 minutes; SEED=1 for other kills
	$(BIN)/python -m tests.support.crash --seed $(or $(SEED),0)

postgres: $(STAMP)  ## kill and resume a study on a PostgreSQL server, which has to be installed; it is started on loopback
	$(BIN)/python -m pytest -q -s -m postgres tests/test_tuning_trials.py

browser: $(STAMP)  ## drive report.html and the live page in a Chromium: CHROMIUM=path of its program
	$(BIN)/python -m pip install --quiet --group browser
	CHROMIUM=$(or $(CHROMIUM),chromium) $(BIN)/python -m pytest -q -m browser tests/test_pages_browser.py

cfg: $(STAMP)  ## write cfg/default.yaml from detector/settings
	$(BIN)/detector settings > cfg/default.yaml

docs: $(STAMP)  ## write docs/settings.md from detector/settings, and the tables of docs/callbacks.md
	$(BIN)/python -c "from detector.reference import settings_markdown as t; print(t(), end='')" > docs/settings.md
	$(BIN)/python docs/write_callbacks.py

site: $(STAMP)  ## the documentation site in build/site, any warning is an error; SERVE=1 shows it at http://127.0.0.1:8000/ instead
	$(BIN)/python -m pip install --quiet --group site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(if $(SERVE),serve,build) --strict

dist: $(STAMP)  ## wheel and sdist in dist/, built twice: the same bytes, or an error
	$(BIN)/python tools/build_twice.py

clean:  ## remove what the targets wrote
	rm -rf .venv dist build runs .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
