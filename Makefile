# make run    environment, built-in model, then the app on http://127.0.0.1:7860 (HOST and PORT change it)
# make test   everything that decides whether a change is good; sets itself up, the browser included
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
export FT_HOME HOST PORT
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: setup run test demo screenshots bench bench-grid oracle gpu lint clean
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

# Long comparisons with reference programs.
oracle: $(VENV)/test.stamp
	$(PY) -m pytest -m oracle

gpu: $(VENV)/test.stamp
	$(PY) -m pytest -m gpu

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
