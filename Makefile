# Two commands: `make demo` and `make test`. PYTHON= names another interpreter (3.11 or later).
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
NAME   ?= fastapi
BIN    := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find ext tracesock -type f \
             -not -name '*.so' -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test example test-kernel test-suites bench lint format install native check-tools clean dashboards check-dashboards

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: install ## build, install and run `tracesock demo` (ARGS="--once", ARGS="--json --once")
	@$(BIN)/tracesock demo $(ARGS)

test: install $(VENV)/.development ## build, install and run the tests (ARGS="-k name")
	@$(BIN)/python -m pytest $(ARGS)

example: install $(VENV)/.development ## run an example of docs/examples (NAME=fastapi, gunicorn or tls_client)
	@$(BIN)/python docs/examples/$(NAME)/run.py

test-suites: install $(VENV)/.development ## other people's tests, on stock and on tracesock (ARGS="--list", ARGS="waitress test_ssl")
	@$(BIN)/python tests/suites/run.py $(ARGS)

test-kernel: $(VENV)/.dependencies ## the families and test_socket on Debian's kernel, in QEMU (ARGS="--only 'families-*'")
	@$(PYTHON) tests/kernel/vm.py all $(ARGS)

bench: install $(VENV)/.bench ## the benchmarks, as ratios to the stock module (ARGS="--quick", ARGS="--json")
	@$(BIN)/python -m tests.bench $(ARGS)

dashboards: $(VENV)/.development ## render dashboards/: Grafana's JSON, the detections' SQL, tables
	@$(BIN)/python -m dashboards

check-dashboards: install $(VENV)/.development ## every expression of dashboards/ against Prometheus (ARGS=--long: 5 minutes)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  { [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && \
	    apt-get install -y -qq --no-install-recommends prometheus iproute2 >/dev/null; } || \
	  { echo "tracesock: prometheus is missing: install it (Debian: apt install prometheus)" >&2; exit 1; }
	@$(BIN)/python -m dashboards --check
	@promtool check rules dashboards/prometheus/*.rules.yml
	@promtool test rules dashboards/prometheus/rules_test.yml
	@$(BIN)/python -m tests.dashboards.check $(ARGS)

lint: install $(VENV)/.development ## ruff, mypy --strict, clang-format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@find ext -name '*.[ch]pp' -print0 | xargs -0 $(BIN)/clang-format --dry-run --Werror

format: install $(VENV)/.development ## rewrite the sources in the project's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .
	@find ext -name '*.[ch]pp' -print0 | xargs -0 $(BIN)/clang-format -i

install: $(VENV)/.installed ## make $(VENV), build and install into it

# What pyproject.toml names: $(call requirements,EXTRA ...) with the build's own requirements.
requirements = $$($(BIN)/python -c 'import sys, tomllib; \
  project = tomllib.load(open("pyproject.toml", "rb")); extras = project["project"]["optional-dependencies"]; \
  names = project["build-system"]["requires"] + project["project"]["dependencies"] \
    + [name for extra in sys.argv[1:] for name in extras[extra]]; \
  print(*dict.fromkeys(name for name in names if not name.startswith("tracesock[")))' $(1))

$(VENV)/.dependencies: pyproject.toml | check-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja \
	  $(call requirements,otlp dashboard)
	@touch $@

$(VENV)/.development: $(VENV)/.dependencies
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(call requirements,otlp instrumentation dashboard dashboards examples dev)
	@touch $@

$(VENV)/.bench: $(VENV)/.dependencies
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(call requirements,otlp instrumentation dashboard bench)
	@touch $@

# The wheel goes into the environment; the extension also beside the sources, so that a Python
# started in this directory, where `tracesock` is the source tree, works as well.
$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-build-isolation --no-deps --force-reinstall .
	@made="$$($(BIN)/python -P -c 'import tracesock._native as n; print(n.__file__)')" && \
	rm -f "tracesock/$${made##*/}" && cp "$$made" tracesock/  # not into one that a program has loaded
	@touch $@

# The extension for one interpreter, beside the sources, with the build tools of $(VENV):
# what the conformance runs over several Python versions use. `make native PYTHON=python3.13`
native: $(VENV)/.dependencies
	@tag=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))') && \
	PATH="$(abspath $(BIN)):$$PATH" cmake -G Ninja -S . -B build/native-$$tag --log-level=WARNING \
	  -DPython_EXECUTABLE="$$($(PYTHON) -c 'import sys; print(sys.executable)')" \
	  -DNANOBIND_PYTHON="$(abspath $(BIN))/python" \
	  -DSKBUILD_PROJECT_VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) >/dev/null && \
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/native-$$tag && \
	PATH="$(abspath $(BIN)):$$PATH" cmake --install build/native-$$tag --prefix . >/dev/null

check-tools:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "tracesock: '$(PYTHON)' is missing: install Python 3.11 or later, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tracesock: '$(PYTHON)' is older than 3.11: name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "tracesock: the venv module of '$(PYTHON)' is missing: install it (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
	  sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { \
	  echo "tracesock: the Python headers (Python.h) of '$(PYTHON)' are missing: install them (Debian: apt install python3-dev)" >&2; exit 1; }
	@set -- $$CXX; test $$# -gt 0 || for name in c++ g++ clang++; do \
	  ! command -v $$name >/dev/null || { set -- $$name; break; }; done; \
	test $$# -gt 0 || { \
	  echo "tracesock: a C++20 compiler is missing: install one (Debian: apt install g++)" >&2; exit 1; }; \
	command -v "$$1" >/dev/null || { \
	  echo "tracesock: the compiler '$$1', which CXX names, is missing: install it, or unset CXX" >&2; exit 1; }; \
	echo | "$$@" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null || { \
	  echo "tracesock: the compiler '$$*' does not compile C++20: install a newer one (Debian: apt install g++)" >&2; exit 1; }

clean: ## remove what was built
	@rm -rf $(VENV) build dist tracesock/_native*.so
