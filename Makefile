# Needs Python 3.11 or newer, git and make. Everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where it is set, each of the thousand processes that the tests start would compile its modules again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup claude-code demo test elsewhere attacks faults bench check pictures installed emptied lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q parallel_orchestrator *.py  # for who runs the program itself where that is set
	@touch $@

setup: $(VENV)/.ready ## make the environment in .venv

claude-code: setup ## add Claude Code (380 MB) to the environment: its tests then run, too
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["claude-code"])')"

demo: setup ## build the medium demo project from its recording, without a key; FRESH=1 begins again
	$(BIN)/python orchestrator.py run --config configs/demo.yaml --only medium $(if $(FRESH),--fresh)

test: setup check ## check types, style and structure, then run the tests
	$(BIN)/python -m pytest -n 6 --dist worksteal -m "not thorough"

elsewhere: setup ## run the tests that depend on it in other places: /tmp, spaces, a linked home, another user, no bubblewrap
	$(BIN)/python -m tests.checks.surroundings $(PLACES)

attacks: setup ## play every attack, the long ones too, then remove each guard: a test must notice
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/attacks tests/agent/test_paths.py
	$(BIN)/python -m tests.checks.guards

faults: setup ## inject every fault, the long ones too: kills, full disks, damaged files
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/reliability tests/batch
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "thorough and not alone" tests/end_to_end tests/claude_code tests/test_demo.py
	$(BIN)/python -m pytest -m alone

.venv-bench/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	.venv-bench/bin/python -m pip install --quiet --group bench
	@touch $@

bench: setup .venv-bench/.ready ## measure this program beside its peers, and write docs/performance.md
	$(BIN)/python -m benchmarks $(BENCHMARKS)

check: setup ## types, style, structure
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pictures: setup ## make the pictures of README.md from real runs; needs Chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group pictures
	$(BIN)/python docs/render_pictures.py

installed: setup ## build the wheel, install it with pip and as a uv tool, run the demo outside the clone; needs a package index
	$(BIN)/python tests/checks/installed.py

emptied: setup ## empty each function of the three demo projects in turn: a test must notice, and every test must once
	@rm -rf .emptied
	@for name in simple medium complex; do \
	  $(BIN)/python orchestrator.py run --config configs/demo.yaml --only $$name --speed 100 --output-dir .emptied/$$name && \
	  $(BIN)/python tests/checks/emptied_functions.py .emptied/$$name || exit 1; \
	done

lock: setup ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/pip-compile --quiet --extra dev --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml

clean: ## remove the environment and caches
	rm -rf $(VENV) .venv-bench .bench .emptied .mypy_cache .ruff_cache .pytest_cache
