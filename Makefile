# The Python with which .venv is built: a command or a path, 3.9 or newer.
PYTHON ?= python3
# mpich: the PyPI wheel, inside .venv. system: mpiexec on PATH, and its library.
MPI ?= mpich

VENV := .venv
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

# PYTHON may be that of an activated .venv: BASE_PYTHON is the one it was built with.
ask = $(shell $(PYTHON) -c "import platform, sys; print($(1))" 2>/dev/null)
BASE_PYTHON := $(call ask,sys._base_executable)
VERSION := $(call ask,platform.python_version())

# Written last: a .venv without it is incomplete, or was built with other settings.
STAMP := $(VENV)/python-$(VERSION)-mpi-$(MPI)

# A .venv whose Python or another file is missing is built again.
LIST := find . -name __pycache__ -prune -o ! -type d -print | LC_ALL=C sort
MISSING := cd $(VENV) && $(LIST) | LC_ALL=C comm -13 - files
ifneq ($(shell { $(VENV)/bin/python -c "" && $(MISSING) && echo none; } 2>&1 || :),none)
$(shell rm -f $(STAMP))
endif

ifeq ($(MPI),system)
# Let Open MPI start more ranks than cores, and run as root (in containers).
export OMPI_MCA_rmaps_base_oversubscribe ?= 1
export PRTE_MCA_rmaps_default_mapping_policy ?= :oversubscribe
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
endif

# Two images per rank, where normalBN falls behind; 8 ranks on 2 processes.
DEMO := --dataset synthetic --train-size 2000 --test-size 500 --epoch 4 --lr 0.004 \
    --lr-step 1 --batchsize 2 --width 8 --fc-units 64 --virtual-ranks 4

# The libraries for comparison have their own venv, because PyTorch is large.
BENCH := .venv-bench

# Scale and output directory of the paper's evaluation.
SCALE := laptop
OUT = result/paper-$(SCALE)

# The report is written from the logs in OUT, or else from those in reproduction/: of the
# largest scale there, unless SCALE names one.
SHOWN = $(SCALE)
ifeq ($(origin OUT),file)
ifeq ($(origin SCALE),file)
SHOWN = $(if $(wildcard reproduction/desktop),desktop,$(SCALE))
endif
LOGS = reproduction/$(SHOWN)
REPORT := REPRODUCTION.md
# The report of the quick check is written beside its logs; the main report refers to it.
REPORT_QUICK_CHECK = $(if $(filter desktop,$(SHOWN)),$(QUICK_CHECK))
else
LOGS = $(OUT)
endif

# The runs at laptop scale that the report at desktop scale also shows.
QUICK_CHECK = $(wildcard reproduction/laptop)
checked = $(and $(filter desktop,$(1)),$(QUICK_CHECK))
checked_at = $(if $(checked),--quick-check "$(QUICK_CHECK)")
EXPERIMENTS = $(IN_VENV) python -m chainer_crossbn experiments

# How many times `make faults` kills a rank.
N := 100

# Two workers. All tests of a file run on the same worker, because they share runs.
# OpenBLAS uses one thread, so that the workers do not compete for cores.
PYTEST = OPENBLAS_NUM_THREADS=1 $(IN_VENV) python -m pytest -n 2 --dist loadfile

.PHONY: help demo faults paper figures test test-slow test-all test-nvrtc mutations \
    check-gpu lint bench venv clean

help:
	@echo "make demo   train three small networks on 8 ranks and draw the figures"
	@echo "make paper  reproduce the paper: DATA=DIR [SCALE=laptop|desktop|full|smoke]"
	@echo "            [OUT=DIR] [ONLY=\"fig3 fig4\"] [SEEDS=3] [JOBS=N]"
	@echo "            [QUICK_CHECK=DIR]"
	@echo "make figures  write the report of the paper's evaluation again, from its logs"
	@echo "make test   lint, then run the tests that are not slow"
	@echo "make test-slow  run the slow tests"
	@echo "make test-all   lint, then run all tests"
	@echo "make test-nvrtc  compile the CUDA kernels for K80 to B200; needs no GPU"
	@echo "make check-gpu  check and time the GPUs of this machine; uses PYTHON, not .venv"
	@echo "make faults kill ranks of small runs N=100 times, and check that nothing is lost"
	@echo "make mutations  break the package in ten ways, and check that the tests fail"
	@echo "make lint   run the linters only"
	@echo "make bench  compare speed with ChainerMN and PyTorch; QUICK=1 runs one round"
	@echo "make venv   build .venv; the other targets do so when needed"
	@echo "make clean  remove .venv and caches"
	@echo "PYTHON=python3.12 selects the Python (3.9 or newer), MPI=system the system's MPI."

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

# Uses the packages installed for PYTHON, so that it works without a network.
check-gpu:
	$(PYTHON) benchmarks/gpu.py

faults: venv
	$(IN_VENV) python tests/faults/campaign.py $(N)

mutations: venv
	$(IN_VENV) python tests/mutations.py

lint: venv
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	@# Not installed before Python 3.11, for which NumPy is annotated differently.
	@if [ -x $(VENV)/bin/mypy ]; then $(VENV)/bin/mypy; fi

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
	    echo "MPI must be mpich or system, not $(MPI)"; exit 1;; esac
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
