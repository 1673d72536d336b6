# Each target is one command from a bare clone. `make` alone lists them.
#
#   PYTHON   the interpreter that makes the environment (3.11 or newer)
#   VENV     where the environment lies

PYTHON ?= python3
VENV ?= .venv

RUN := $(VENV)/bin/python
DEMO_INSTALLED := $(VENV)/.fastllm-demo
TEST_INSTALLED := $(VENV)/.fastllm-test

.PHONY: help demo test check

help:
	@echo "make demo    install once, then serve the page on http://127.0.0.1:7860"
	@echo "make test    install the test tools once, then run the tests"
	@echo "make check   the linter and the type checker"

demo: $(DEMO_INSTALLED)
	$(RUN) app.py

test: $(TEST_INSTALLED)
	$(RUN) -m pytest

check: $(TEST_INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# The stamps: pip runs again only when a file of requirements is newer than they are.

$(DEMO_INSTALLED): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    found=`$(PYTHON) -V 2>/dev/null || echo missing`; \
	    echo "FastLLM needs Python 3.11 or newer; '$(PYTHON)' is $$found." >&2; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -r requirements.txt -c constraints.txt
	@touch $@

$(TEST_INSTALLED): $(DEMO_INSTALLED) tests/requirements.txt
	$(RUN) -m pip install -r tests/requirements.txt -c constraints.txt
	@touch $@
