# Two commands do everything on a fresh machine: `make frontier` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.txt)
PRESET ?= digits

.PHONY: frontier test check ui clean

frontier: $(READY)  ## The main job: sweep, train, measure, draw (PRESET=digits by default).
	$(BIN)/python sweeps/frontier.py --preset $(PRESET)

test: $(READY) check  ## Everything CI runs.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## Formatting, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: $(READY)  ## The MLflow UI on 127.0.0.1, with the link to the frontier.
	$(BIN)/runtime-pruning ui

# Byte-compiling at install time spares the first Ray start a minute.
$(READY): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) results
