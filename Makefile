# Each target is one command from a bare clone. `make` alone lists them.
#
#   PYTHON   the interpreter that makes the environment (3.11 or newer)
#   PORT     where demo serves the page; the first free one from 7860 by default
#   VENV     where the environment lies
#   DATA     for checkpoints and gpu: a folder with train, validation and articles as .jsonl.xz;
#            for bench: with test
#   TARGET   for checkpoints: the recipe of the target; recipes/target-cpu.yaml without a GPU
#   START    for checkpoints: a target to go on from; recipes/target-cpu.yaml is made for one
#   OUT      for gpu: its results and logs; STEPS and more are in recipes/gpu.sh
#   SCALE    for checkpoints and gpu: shrinks updates and articles; 0.01 tries everything out
#   RUNS     for checkpoints: where they are made; what is there is not made again
#   BENCH    for bench: where its report goes
#   TESTS    for test: what pytest is given beside its settings; -m slow runs what takes minutes,
#            -m browser what drives a real Chromium

PYTHON ?= python3
VENV ?= .venv
DATA ?= DATA
SCALE ?= 1
TARGET ?= recipes/target.yaml
OUT ?= runs/gpu
RUNS ?= runs/checkpoints
ARTICLES ?= 6000
BENCH ?= runs/bench
TESTS ?=

RUN := $(VENV)/bin/python
FASTLLM := $(RUN) -m fastllm
RECIPES := $(filter-out recipes/target% recipes/flan-% recipes/cascade-% recipes/%-tvdpp.yaml recipes/pruned-%,$(wildcard recipes/*.yaml))
DEMO_INSTALLED := $(VENV)/.fastllm-demo
TEST_INSTALLED := $(VENV)/.fastllm-test

.PHONY: help demo test check bench checkpoints gpu

help:
	@echo "make demo    install once, then serve the page on http://127.0.0.1:7860"
	@echo "make test    install the test tools once, then run the tests"
	@echo "make check   the linter, the formatter and the type checker"
	@echo "make bench DATA=FOLDER   every lane against transformers on 50 articles of test.jsonl.xz"
	@echo "make checkpoints DATA=FOLDER [SCALE=0.01]   train a target and all drafters"
	@echo "make gpu DATA=FOLDER [SCALE=0.001]   checks, costs and training on a GPU, in 15 minutes"

demo: $(DEMO_INSTALLED)
	$(RUN) app.py $(if $(PORT),--port $(PORT))

test: $(TEST_INSTALLED)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

check: $(TEST_INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(DEMO_INSTALLED)
	$(FASTLLM) bench --data $(DATA)/test.jsonl.xz --out $(BENCH)

# Each line passes over what is done already, so an interrupted `make checkpoints` goes on.
checkpoints: $(DEMO_INSTALLED)
	$(FASTLLM) train --target $(TARGET) --data $(DATA) --run $(RUNS)/target \
	    --scale $(SCALE) $(if $(START),--start $(START))
	$(FASTLLM) pseudo --target $(RUNS)/target/checkpoint --data $(DATA) --out $(RUNS)/pseudo \
	    --limit $(ARTICLES) --scale $(SCALE)
	@set -e; for recipe in $(RECIPES); do \
	    name=$$(basename $$recipe .yaml); echo "$$name"; \
	    $(FASTLLM) train --recipe $$recipe --target $(RUNS)/target/checkpoint \
	        --pseudo_dataset_path $(RUNS)/pseudo --run $(RUNS)/$$name \
	        --out $(RUNS)/made/$$name --scale $(SCALE); \
	done
	@echo "the target is in $(RUNS)/target/checkpoint, the drafters are in $(RUNS)/made"

gpu: $(TEST_INSTALLED)
	DATA=$(DATA) OUT=$(OUT) SCALE=$(SCALE) PYTHON=$(RUN) bash recipes/gpu.sh

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
