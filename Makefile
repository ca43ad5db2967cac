# The Python that .venv is made with: a command or a path, 3.9 or newer.
PYTHON ?= python3
# mpich: the PyPI wheel, inside .venv. system: mpiexec on PATH, and its library.
MPI ?= mpich

VENV := .venv
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

# Asked of PYTHON, which may be the one of an activated .venv: what that was made with.
ask = $(shell $(PYTHON) -c "import platform, sys; print($(1))" 2>/dev/null)
BASE_PYTHON := $(call ask,sys._base_executable)
VERSION := $(call ask,platform.python_version())

# Written last, so that a .venv without it is half-built, or not what is asked for.
STAMP := $(VENV)/python-$(VERSION)-mpi-$(MPI)

# A .venv that lost its Python or another file is not to be trusted either.
LIST := find . -name __pycache__ -prune -o ! -type d -print | LC_ALL=C sort
MISSING := cd $(VENV) && $(LIST) | LC_ALL=C comm -13 - files
ifneq ($(shell { $(VENV)/bin/python -c "" && $(MISSING) && echo none; } 2>&1 || :),none)
$(shell rm -f $(STAMP))
endif

ifeq ($(MPI),system)
# Open MPI: more ranks than cores; root, as which containers run.
export OMPI_MCA_rmaps_base_oversubscribe ?= 1
export PRTE_MCA_rmaps_default_mapping_policy ?= :oversubscribe
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
endif

# Two images per rank, where normalBN falls behind; 8 ranks on 2 processes.
DEMO := --dataset synthetic --train-size 2000 --test-size 500 --epoch 4 --lr 0.004 \
    --lr-step 1 --batchsize 2 --width 8 --fc-units 64 --virtual-ranks 4

# What is compared with comes apart: PyTorch is large.
BENCH := .venv-bench

# How large the paper's evaluation is, and where it goes.
SCALE := laptop
OUT = result/paper-$(SCALE)

# What the report is made of: the logs of OUT, or those that come with this clone. Of
# these the largest scale is shown, unless SCALE names one.
SHOWN = $(SCALE)
ifeq ($(origin OUT),file)
ifeq ($(origin SCALE),file)
SHOWN = $(if $(wildcard reproduction/desktop),desktop,$(SCALE))
endif
LOGS = reproduction/$(SHOWN)
REPORT := REPRODUCTION.md
# The report of the quick check goes beside its logs, and the other names it.
REPORT_QUICK_CHECK = $(if $(filter desktop,$(SHOWN)),$(QUICK_CHECK))
else
LOGS = $(OUT)
endif

# The runs at laptop scale that the report at desktop scale shows beside its own.
QUICK_CHECK = $(wildcard reproduction/laptop)
checked = $(and $(filter desktop,$(1)),$(QUICK_CHECK))
checked_at = $(if $(checked),--quick-check "$(QUICK_CHECK)")
EXPERIMENTS = $(IN_VENV) python -m chainer_crossbn experiments

# How many times `make faults` kills a rank.
N := 100

# Two workers, and a file's tests on one of them, as they share runs. OpenBLAS starts no
# threads, which would compete with the other worker.
PYTEST = OPENBLAS_NUM_THREADS=1 $(IN_VENV) python -m pytest -n 2 --dist loadfile

.PHONY: help demo faults paper figures test test-slow test-all test-nvrtc mutations \
    check-gpu lint bench venv clean

help:
	@echo "make demo   train three small networks on 8 ranks and draw the figures"
	@echo "make paper  reproduce the paper: DATA=DIR [SCALE=laptop|desktop|full|smoke]"
	@echo "            [OUT=DIR] [ONLY=\"fig3 fig4\"] [SEEDS=3] [JOBS=N]"
	@echo "            [QUICK_CHECK=DIR]"
	@echo "make figures  the report of the paper's evaluation again, from its logs"
	@echo "make test   lint, and run the tests that are not slow"
	@echo "make test-slow  run the slow tests"
	@echo "make test-all   lint, and run all tests"
	@echo "make test-nvrtc  compile the kernels of GPUs, from K80 to B200; needs no GPU"
	@echo "make check-gpu  check and time the GPUs of this machine, with PYTHON as it is"
	@echo "make faults kill ranks of small runs, N=100 times, and see that nothing is lost"
	@echo "make mutations  break the package in ten ways: do the tests notice?"
	@echo "make lint   lint alone"
	@echo "make bench  compare speed with ChainerMN and PyTorch; QUICK=1: one round"
	@echo "make venv   build .venv, as the others do when they need it"
	@echo "make clean  remove .venv and caches"
	@echo "PYTHON=python3.12 picks the Python (3.9 or newer), MPI=system the system's MPI."

demo: venv
	@export $(IN_VENV); out=result/demo; \
	n=1; while [ -e $$out ]; do n=$$((n + 1)); out=result/demo-$$n; done; \
	show() { echo; echo "$$ $$*"; "$$@"; }; \
	for bn in none normal multigpu; do \
	    show mpiexec -n 2 python train_cifar.py --bn $$bn $(DEMO) --out $$out \
	        || exit; \
	done; \
	show python plot.py $$out

paper: venv
	@$(EXPERIMENTS) --scale "$(SCALE)" \
	    --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(ONLY),--only $(ONLY)) \
	    $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(JOBS),--jobs "$(JOBS)") \
	    $(call checked_at,$(SCALE))

figures: venv
	@$(if $(REPORT_QUICK_CHECK),$(EXPERIMENTS) --out "$(QUICK_CHECK)" --report-only)
	@$(EXPERIMENTS) --scale "$(SHOWN)" --out "$(LOGS)" --report-only \
	    $(if $(REPORT),--report "$(REPORT)") $(call checked_at,$(SHOWN))

test: lint
	$(PYTEST) -m "not slow"

test-slow: venv
	$(PYTEST) -m slow

test-all: test test-slow

test-nvrtc: venv
	$(VENV)/bin/python -m pip install -q --no-build-isolation -e ".[nvrtc]"
	$(IN_VENV) python -m pytest tests/nvrtc/compilation.py

# With what PYTHON has installed, so that it serves where there is no network.
check-gpu:
	$(PYTHON) benchmarks/gpu.py

faults: venv
	$(IN_VENV) python tests/faults/campaign.py $(N)

mutations: venv
	$(IN_VENV) python tests/mutations.py

lint: venv
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .

bench: $(BENCH)/made
	PATH="$(CURDIR)/$(BENCH)/bin:$$PATH" python benchmarks/compare.py \
	    $(if $(QUICK),--quick)

$(BENCH)/made: requirements.txt pyproject.toml
	rm -rf $(BENCH)
	"$(BASE_PYTHON)" -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q "setuptools>=77,<81" wheel
	$(BENCH)/bin/python -m pip install -q --prefer-binary --no-build-isolation -e ".[bench]"
	@touch $@

venv: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@case "$(VERSION)" in 3.9.*|3.[1-9][0-9].*) ;; *) \
	    echo "Python 3.9 or newer is needed, $(PYTHON) is $(or $(VERSION),not found):" \
	        "name one, as in: make PYTHON=python3.12"; exit 1;; esac
	@"$(BASE_PYTHON)" -c "import ensurepip, venv" || { \
	    echo "$(PYTHON) cannot make a venv: install its venv package"; exit 1; }
	@case "$(MPI)" in mpich) ;; system) command -v mpiexec >/dev/null || { \
	    echo "MPI=system, but there is no mpiexec on PATH"; exit 1; };; *) \
	    echo "MPI is mpich or system, not $(MPI)"; exit 1;; esac
	@echo "Building $(VENV) with Python $(VERSION); this takes about a minute."
	rm -rf $(VENV)
	"$(BASE_PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q "setuptools>=77,<81" wheel
	$(VENV)/bin/python -m pip install -q --prefer-binary --no-build-isolation -e ".[test]"
ifeq ($(MPI),system)
	$(VENV)/bin/python -m pip uninstall -q -y mpich
endif
	cd $(VENV) && $(LIST) >files
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH) build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
