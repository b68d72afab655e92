# make demo | make test [PEERS=1] | make lint; each does its own set-up on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
# Test processes; each uses about one core, most of it to compile.
JOBS   ?= 2
PY     := $(VENV)/bin/python
comma  := ,
EXTRAS := test$(if $(PEERS),$(comma)peers)

.PHONY: demo test chaos bench gpu lint docs package clean help
help:
	@echo "make demo          three optimizers on handwritten digits, tuned equally, three seeds each; a language model (4 minutes)"
	@echo "make test          run the tests; PEERS=1 adds those that compare with PyTorch; ARGS=... goes to pytest"
	@echo "make chaos         kill runs 100 times and disturb studies in 20 rounds; compare every bit of what they end with"
	@echo "make bench         every benchmark, ours against PyTorch, into results/performance.md (about 30 minutes, idle machine)"
	@echo "make gpu           on a machine with an NVIDIA GPU: tests, benchmarks, then full runs of section 2.1 (BUDGET_S=600)"
	@echo "make lint          ruff and pyright"
	@echo "make docs          the documentation, into docs/_build/html; ONLINE=1 checks links to other sites, too"
	@echo "make package       wheel and source distribution, checked and tried in an empty environment"

# A stamp a set of extras, so that a changed pyproject.toml, and nothing else, installs again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) found; say which with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

demo: $(VENV)/.installed-study
	$(PY) -m train.study --study=configs/studies/quick.py --out=checkpoints/demo --jobs=2
	$(PY) -m train --config=configs/pydoc_gru.py --workdir=checkpoints/demo_text --config.epochs=2

test: $(VENV)/.installed-$(EXTRAS)
	$(PY) -m pytest -n $(JOBS) --dist=worksteal $(ARGS)

chaos: $(VENV)/.installed-test
	$(PY) -m tests.train.chaos --kills=100 --out=results/reliability.md
	$(PY) -m tests.train.study.chaos --rounds=20 --out=results/reliability.md

# Those against PyTorch, then ours alone; one after another, and the page in any case from what there is.
BENCHMARKS := resnet18 cnn gru "optimizer --torch" "compile_time --out=results/performance/compile_time.json" epoch settings startup agreement checkpoint
bench: $(VENV)/.installed-test,peers
	@for benchmark in $(BENCHMARKS); do \
	  echo "== benchmarks.$$benchmark"; $(PY) -m benchmarks.$$benchmark $(ARGS) || exit 1; done
	$(PY) -m benchmarks.report

# The extra that fits the driver: cuda12 or cuda13, by the newest CUDA that it serves.
CUDA ?= $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \(1[23]\).*/cuda\1/p')
BUDGET_S ?= 600
gpu: $(if $(CUDA),$(VENV)/.installed-test$(comma)$(CUDA))
	@test -n "$(CUDA)" || { echo "no driver for CUDA 12 or 13 found by nvidia-smi; say which with: make gpu CUDA=cuda12" >&2; exit 1; }
	$(PY) -m benchmarks.gpu --budget_s=$(BUDGET_S) $(ARGS)

# With PyTorch, which the benchmarks import: pyright reads them too.
lint: $(VENV)/.installed-test,peers
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/pyright

docs: $(VENV)/.installed-docs
	$(PY) -m sphinx --fail-on-warning --keep-going --nitpicky --quiet -b html docs docs/_build/html
	$(PY) docs/check_links.py docs/_build/html
	$(if $(ONLINE),$(PY) -m sphinx --fail-on-warning --quiet -b linkcheck docs docs/_build/links)
	@echo "open docs/_build/html/index.html"

# From outside the checkout, so that only what was installed can be imported.
package: $(VENV)/bin/python
	rm -rf build dist
	$(PY) -m pip install --quiet --disable-pip-version-check build twine
	$(PY) -m build --outdir dist
	$(PY) -m twine check --strict dist/*
	$(PYTHON) -m venv --clear build/empty
	build/empty/bin/pip install --quiet --disable-pip-version-check dist/*.whl $(WITH)
	cd build/empty && bin/python -I $(CURDIR)/tests/smoke.py

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
