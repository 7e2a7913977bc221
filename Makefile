# make run    environment, built-in model, then the app on http://127.0.0.1:7860 (HOST and PORT change it)
# make test   everything that decides whether a change is good; sets itself up, the browser included
PYTHON ?= python3
VENV ?= .venv
NEWEST ?= build/newest
UNSLOTH ?= build/unsloth
PY = $(VENV)/bin/python
ON_LIBRARIES = $(wildcard tests/core/test_train_*.py tests/core/test_render*.py tests/core/test_export_*.py) \
	tests/core/test_builtin.py tests/core/test_compare_methods.py tests/core/test_engine.py tests/core/test_freeze.py \
	tests/core/test_heldout.py tests/core/test_prepare.py tests/core/test_publish.py
export FT_HOME HOST PORT
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: setup run test test-newest test-unsloth demo screenshots bench bench-grid canary oracle gpu lint clean
.DELETE_ON_ERROR:

$(VENV)/run.stamp: requirements.txt space_config/setup.py
	$(PYTHON) space_config/setup.py $(VENV) run
	touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements-dev.txt
	$(PYTHON) space_config/setup.py $(VENV) test
	touch $@

setup: $(VENV)/run.stamp

run: $(VENV)/run.stamp
	$(PY) app.py

test: $(VENV)/test.stamp lint
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/test.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# What stands on the libraries of training and of the Hub, at the upper end of the ranges in pyproject.toml, in an
# environment of its own.
test-newest: $(NEWEST)/newest.stamp
	PATH="$(abspath $(NEWEST))/bin:$$PATH" $(NEWEST)/bin/python -m pytest $(or $(ARGS),$(ON_LIBRARIES))

$(NEWEST)/newest.stamp: requirements.txt requirements-dev.txt space_config/requirements-newest.txt space_config/setup.py
	$(PYTHON) space_config/setup.py $(NEWEST) newest
	touch $@

# Training with Unsloth, and by FT Flow's own engine beside it, in an environment of its own.
test-unsloth: $(UNSLOTH)/unsloth.stamp
	PATH="$(abspath $(UNSLOTH))/bin:$$PATH" $(UNSLOTH)/bin/python -m pytest \
		$(or $(ARGS),-m 'not oracle and not gpu' $(wildcard tests/core/test_train_*.py))

$(UNSLOTH)/unsloth.stamp: requirements.txt requirements-dev.txt space_config/requirements-gpu.txt space_config/setup.py
	$(PYTHON) space_config/setup.py $(UNSLOTH) unsloth
	touch $@

# The whole loop without a page, on 503 real questions and answers: about ten minutes on two cores.
demo: $(VENV)/test.stamp
	$(PY) -m benchmarks.demo

# The pictures that README shows.
screenshots: $(VENV)/test.stamp
	$(PY) -m pytest tests/browser/test_walk.py -k screenshots
	cp build/screenshots/trained.png space_config/screenshots/train.png
	cp build/screenshots/compare.png space_config/screenshots/compare.png

bench: $(VENV)/test.stamp
	$(PY) -m benchmarks.start
	$(PY) -m benchmarks.compare

# A million rows in a browser against gr.Dataframe: several minutes.
bench-grid: $(VENV)/test.stamp
	$(PY) -m benchmarks.grid

# Whether a training learns an invented fact among other rows: a minute or two on two cores.
canary: $(VENV)/test.stamp
	$(PY) -m ft_core prepare
	$(PY) -m benchmarks.canary

# Long comparisons with reference programs.
oracle: $(VENV)/test.stamp
	$(PY) -m pytest -m oracle

gpu: $(VENV)/test.stamp
	$(PY) -m pytest -m gpu

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
