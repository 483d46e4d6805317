# make demo: see it work. make test: the quick tests. make test-all: every test. All make their environment, .venv, once.
# make gpu-check PYTHON=...: tests and measures on a GPU, with what that Python has; installs nothing. STEP=1, 2 or 3: a part.
PYTHON ?= python3
BIN := .venv/bin
# setuptools warns of editable installations in general; nothing in that is for the reader.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
C_FILES = $(shell find ndp_rt/capi examples bench/capi tests/capi -regex '.*\.\(c\|h\|cpp\|hpp\)')
HAS_TORCH := $(BIN)/python -c 'import importlib.util as u; raise SystemExit(u.find_spec("torch") is None)'
# Tests start hundreds of processes: what one has compiled of our modules is kept for the next, whatever is set.
export PYTHONDONTWRITEBYTECODE =
# Files go to processes whole: their tests share what was built for the first.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --max-worker-restart 0

.PHONY: demo docs lint test test-all gpu-check

demo: .venv/.base
	@$(BIN)/python -m ndp_rt.cli demo

lint: .venv/.test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check --quiet .
	@echo clang-format; $(BIN)/clang-format --dry-run --Werror $(C_FILES)
	@if $(HAS_TORCH); then \
		echo mypy; $(BIN)/python -m mypy; \
	else \
		echo 'mypy (without export/, bench/models/ and bench/rivals/*torch*, which need PyTorch)'; \
		$(BIN)/python -m mypy --follow-imports=silent --exclude '/export/|/bench/models/|/rivals/.*torch' -p ndp_rt; \
	fi

test: lint
	$(PYTEST) --part quick

test-all: lint
	$(PYTEST)

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'The documentation: build/site/index.html'

gpu-check:
	@'$(PYTHON)' -m ndp_rt.bench.gpu_check $(addprefix --step ,$(STEP)) $(ARGS)

.venv/.python:
	@command -v '$(PYTHON)' >/dev/null || { \
		echo '$(PYTHON) was not found; Python 3.10 or newer is needed: make demo PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo '$(PYTHON) is older than Python 3.10, which is needed: make demo PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make environments. On Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@echo 'Making the environment .venv'
	@'$(PYTHON)' -m venv .venv
	@$(PIP) --upgrade pip
	@touch $@

.venv/.base: .venv/.python pyproject.toml setup.py ndp_rt/__init__.py
	@echo 'Installing ndp-rt and what it needs into .venv (about 160 MB, a minute or two)'
	@$(PIP) -e .
	@touch $@

.venv/.docs: .venv/.base
	@echo 'Installing what the documentation needs into .venv'
	@$(PIP) -e '.[docs]'
	@touch $@

.venv/.test: .venv/.base tests/install_torch.py
	@echo 'Installing what the tests need into .venv'
	@$(PIP) -e '.[test]'
	@PYTHONWARNINGS=ignore $(BIN)/python tests/install_torch.py
	@touch $@
