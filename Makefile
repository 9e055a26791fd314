# Two commands do everything on a fresh machine: `make frontier` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.txt)
PRESET ?= cluttered-digits
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: frontier test check ui docs clean

frontier: $(READY)  ## The main job: sweep, train, measure, draw (PRESET=cluttered-digits by default).
	$(BIN)/python sweeps/frontier.py --preset $(PRESET)

test: $(DEV_READY) check  ## Everything CI runs.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(DEV_READY)  ## Formatting, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: $(READY)  ## The MLflow UI on 127.0.0.1, with the link to the frontier.
	$(BIN)/runtime-pruning ui

docs: $(DEV_READY)  ## The pages of docs/ as a site, in site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# While something is being installed there is no $(READY): a set-up that was interrupted, and may
# have left half a package behind, is begun anew by the same command.
# Byte-compiling at install time spares the first Ray start a minute.
$(READY): requirements.txt requirements-cuda.txt pyproject.toml
	test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	rm -f $@
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(INSTALL) --compile-bytecode -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

$(DEV_READY): $(READY) requirements-dev.txt
	rm -f $(READY)
	$(INSTALL) --compile-bytecode -r requirements.txt -r requirements-dev.txt
	touch $(READY) $@

clean:
	rm -rf $(VENV) results site
