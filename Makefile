# The same steps without make are in the README ("Without make").
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Waiting threads sleep instead of spinning: many times faster where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: learn test build run audit doctor site lock clean

learn: $(VENV)/.installed
	$(BIN)/python -m utils learn $(ARGS)

$(VENV)/.installed: requirements.lock
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements.lock
	touch $@

# A process for each core, and of each file's tests one process; more than four would each hold a model for little gain.
test: $(VENV)/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

# What only the tests need: several processes, a driver for the Chromium that is on the machine, what `transformers serve` and its client are made of.
$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet pytest-xdist==3.8.0 playwright==1.65.2 openai==3.57.0 fastapi==0.165.0 uvicorn==0.54.0
	touch $@

build: $(VENV)/.installed
	$(BIN)/python -m utils build $(ARGS)

run: $(VENV)/.installed
	$(BIN)/python -m utils run $(ARGS)

audit: $(VENV)/.installed
	$(BIN)/python -m utils audit $(ARGS)

# The site, in docs/site/_build/html: from the solved notebooks as they are, with an environment of its own.
site: .venv-site/.installed
	.venv-site/bin/python docs/site/build.py $(ARGS)

.venv-site/.installed: requirements-site.lock
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements-site.lock
	touch $@

doctor:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m utils doctor; else $(PYTHON) -m utils doctor; fi

# Resolve the bounds of pyproject.toml anew and write down what came out.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -c "import subprocess, sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		wanted = project['dependencies'] + project['optional-dependencies']['lab']; \
		subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', *wanted], check=True)"
	.venv-lock/bin/python -m pip freeze --exclude setuptools | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .pytest_cache
