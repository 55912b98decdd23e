# Everything a person or CI does with this project. `make` lists it.
#
# Variables, given as `make install NAME=value` or in the environment:
#   PYTHON       the Python (3.11 or newer) that makes .venv                      default: python3
#   TORCH_INDEX  a package index to take torch from. On a machine without an NVIDIA GPU
#                TORCH_INDEX=https://download.pytorch.org/whl/cpu keeps pip from fetching
#                gigabytes of CUDA libraries.                                     default: pip's own index
#   LISTEN       address of `make serve`                                          default: 127.0.0.1:50051
#   DEVICE       device of `make serve`: auto, cpu, cuda, cuda:N                  default: auto
#   PYTEST_ARGS  options for `make test`, e.g. PYTEST_ARGS='-k permute -x'
#   BENCH_ARGS   options for `make bench` and `make bench-gpu`
#   HOST         the server of `make load`                                        default: LISTEN
#   USERS, TIME  of `make load`: how many at once, for how long                   default: 16, 20s
#   WORK         of `make load`: MlpUser, TensorUser or both                      default: both
#   PROCESSES    of `make load`: worker processes here                            default: 1
#   WEB=1        `make load` with locust's web page instead of a run without one
#   LOAD_ARGS    more options of locust for `make load`
#   CALLS, MINUTES, SEED  of `make fuzz`: how much at most, and a name for the same calls again
#                                                                                    default: 1000000, 60, a new one
#   FUZZ_ARGS    more options for `make fuzz`, e.g. FUZZ_ARGS='--only Tensor.gather,cat'
#   N, LEAK=1    of `make soak`: requests; the control, which must fail           default: 1000000
#   IMAGE        cpu or cuda, for `make image`                                    default: cpu
#   ENGINE       what builds images: docker, podman or buildah                    default: docker

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
TORCH_INDEX ?=
LISTEN ?= 127.0.0.1:50051
DEVICE ?= auto
PYTEST_ARGS ?=
BENCH_ARGS ?=
HOST ?= $(LISTEN)
USERS ?= 16
TIME ?= 20s
WORK ?=
PROCESSES ?= 1
WEB ?=
LOAD_ARGS ?=
CALLS ?= 1000000
MINUTES ?= 60
SEED ?=
FUZZ_ARGS ?=
N ?= 1000000
LEAK ?=
IMAGE ?= cpu
ENGINE ?= docker

VENV := .venv
PY := $(VENV)/bin/python
# What runs a server and the demo; and all that works on the project, which is that and more.
DEMO_INSTALLED := $(VENV)/.installed-demo
INSTALLED := $(VENV)/.installed
STAMPS := $(DEMO_INSTALLED) $(INSTALLED)
NODE_INSTALLED := tests/node/node_modules/.installed
OPERATIONS := operations.generate
PROTOS := $(sort $(patsubst proto/%,%,$(shell find proto -name '*.proto')))
IMAGE_NAME := tensor-compute-server
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' proto/tensorcompute/__init__.py)

# Plugins of protoc, node and the linters are found in the environment first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where a proxy is set for pip, tests and tools that use gRPC without tclient must reach this machine without it.
export no_grpc_proxy := 127.0.0.1,localhost,::1

##@ Start here

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile
	@printf '\nVariables are described at the top of the Makefile. Without an NVIDIA GPU:\n'
	@printf '  make install TORCH_INDEX=https://download.pytorch.org/whl/cpu\n'

.PHONY: install
install: $(INSTALLED) ## Make .venv with the server, the client and all tools

.PHONY: demo
demo: $(DEMO_INSTALLED) ## Start a server, tour it, classify handwritten digits on it, stop it
	$(PY) client/examples/demo.py

.PHONY: serve
serve: $(DEMO_INSTALLED) ## Run the server on LISTEN, DEVICE
	exec $(VENV)/bin/tserver serve --listen $(LISTEN) --device $(DEVICE)

##@ Work on it

.PHONY: test
test: $(INSTALLED) $(NODE_INSTALLED) ## Run the tests
	$(PY) -m pytest -n 3 --dist loadfile -m 'not slow' $(PYTEST_ARGS)

# Three nodes of Ray, each with processes of its own, are too much for two cores to be started with every run.
.PHONY: test-cluster
test-cluster: $(INSTALLED) ## Start three nodes of Ray under load, kill one and drain one
	TENSORCOMPUTE_TEST_CLUSTER=1 $(PY) -m pytest tests/cluster $(PYTEST_ARGS)

.PHONY: test-wheel
test-wheel: $(INSTALLED) ## Install the wheel alone, on this and on the newest Python here, and try it
	$(PY) -m tests.wheel

.PHONY: check
check: check-format check-lint check-types check-proto check-operations check-docker ## All that must be clean before a change lands

.PHONY: format
format: $(INSTALLED) ## Format the code and repair what the linter can
	ruff check --fix --quiet .
	ruff format .

.PHONY: proto
proto: $(INSTALLED) ## Generate the operation table, the enums and the stubs again
	$(PY) -m $(OPERATIONS)
	$(call generate_stubs,proto)

.PHONY: bench
bench: $(INSTALLED) ## Measure against the yardsticks
	$(PY) -m tests.bench $(BENCH_ARGS)

# A GPU host has the torch that fits its driver. Where PYTHON has that and gRPC, nothing is installed.
.PHONY: bench-gpu
bench-gpu: ## Measure on a CUDA device
	@if $(PYTHON) -c '$(python_has_cuda)' 2>/dev/null; then \
	  PYTHONPATH=client:server:proto $(PYTHON) -m tests.bench.gpu $(BENCH_ARGS); \
	else \
	  $(MAKE) install && $(PY) -m tests.bench.gpu $(BENCH_ARGS); \
	fi

.PHONY: load
load: $(INSTALLED) ## Put load on the server at HOST: USERS for TIME, or WEB=1
	@mkdir -p out/load
	locust --locustfile tests/load/locustfile.py --host $(HOST) --users $(USERS) --spawn-rate $(USERS) \
	  --csv out/load/users --html out/load/users.html $(if $(filter-out 1,$(PROCESSES)),--processes $(PROCESSES)) \
	  $(if $(WEB),--web-host 127.0.0.1,--headless --run-time $(TIME) --only-summary) $(LOAD_ARGS) $(WORK)

.PHONY: soak
soak: $(INSTALLED) ## Send N requests to a server and watch its memory; LEAK=1 is the control
	$(PY) -m tests.load.soak --requests $(N) --device $(DEVICE) $(if $(LEAK),--leak)

.PHONY: fuzz
fuzz: $(INSTALLED) ## Draw CALLS calls for MINUTES, and tell which end, stall or deceive the engine
	$(PY) -m tests.fuzz --calls $(CALLS) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(FUZZ_ARGS)

.PHONY: docs
docs: $(INSTALLED) ## Build the site of the documentation into out/site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'out/site/index.html'

##@ Ship it

.PHONY: wheel
wheel: $(INSTALLED) ## Build the wheel into dist/
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

.PHONY: image
image: ## Build the server's container image: IMAGE=cpu or IMAGE=cuda
	@command -v $(ENGINE) >/dev/null || { echo "make image: '$(ENGINE)' is not installed; install it or name another with ENGINE=podman or ENGINE=buildah" >&2; exit 1; }
	$(ENGINE) build --file docker/Dockerfile --target $(IMAGE) --build-arg VERSION=$(VERSION) \
	  $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) \
	  --tag $(IMAGE_NAME):$(VERSION)-$(IMAGE) --tag $(IMAGE_NAME):$(IMAGE) .

.PHONY: lock
lock: out/tools ## Pin what the images install, with hashes, to what constraints.txt says: docker/requirements
	PATH="$(CURDIR)/out/tools/bin:$$PATH" $(PYTHON) docker/lock.py

.PHONY: audit
audit: out/tools ## Look up known vulnerabilities of what the images install
	@for each in docker/requirements/*.txt; do \
	  echo "$$each"; out/tools/bin/pip-audit --disable-pip --require-hashes --requirement "$$each"; \
	done

# Apart from .venv: what they need themselves is nothing that runs here.
out/tools:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet 'pip-audit>=2.9,<3' 'uv>=0.8'

.PHONY: clean
clean: ## Remove caches and what was built, but not .venv
	rm -rf build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/node/node_modules
	find client server proto tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove .venv too
	rm -rf $(VENV)

# ---- the environment ----------------------------------------------------------------------------------------------

# A stamp holds the place it was made for: the scripts of a copied or moved .venv would run the tree they came from.
ifneq ($(shell cat $(STAMPS) 2>/dev/null),$(wildcard $(STAMPS:%=$(CURDIR)/%)))
.PHONY: $(STAMPS)
endif

$(DEMO_INSTALLED): extras := server,demo
$(DEMO_INSTALLED): what := the server and the demo
$(INSTALLED): extras := server,demo,load,dev
$(INSTALLED): what := the project and its tools

# With a C compiler, this compiles what can be: again whenever that has changed.
$(STAMPS): pyproject.toml constraints.txt hatch_build.py $(shell find client server -name '*.pyx')
	@for stamp in $(STAMPS); do \
	  if [ -f "$$stamp" ] && [ "$$(cat "$$stamp")" != "$(CURDIR)/$$stamp" ]; then \
	    echo "$(VENV) was made for $$(cat "$$stamp"); making it anew"; rm -rf $(VENV); \
	  fi; \
	done
	@if ! $(PY) -c '' 2>/dev/null; then \
	  command -v '$(PYTHON)' >/dev/null || { echo "make: '$(PYTHON)' is not a program here; name a Python 3.11 or newer: make install PYTHON=/path/to/python3" >&2; exit 1; }; \
	  '$(PYTHON)' -c '$(python_is_new)' || exit 1; \
	  echo "making $(VENV) with $$('$(PYTHON)' --version)"; \
	  '$(PYTHON)' -m venv --clear $(VENV) || { echo "make: '$(PYTHON)' cannot make an environment; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }; \
	fi
	@$(PY) -c '$(python_is_new)'
	@if [ -n '$(TORCH_INDEX)' ]; then \
	  echo 'installing torch from $(TORCH_INDEX)'; \
	  $(PY) -m pip install --quiet --no-compile --no-deps --index-url '$(TORCH_INDEX)' "$$(grep '^torch==' constraints.txt)"; \
	elif ! command -v nvidia-smi >/dev/null && ! $(PY) -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then \
	  echo 'no NVIDIA GPU found; if pip now fetches CUDA libraries, TORCH_INDEX (see `make help`) avoids them'; \
	fi
	@echo 'installing $(what)'
	@$(PY) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(extras)]'
	@$(finish)
	@for stamp in $(if $(findstring dev,$(extras)),$(STAMPS),$@); do echo "$(CURDIR)/$$stamp" > "$$stamp"; done

# What is imported is compiled then. Tests start many processes, where nothing may be written.
$(INSTALLED): finish = $(PY) -m compileall -qq -j 0 $(VENV)/lib || true
# By which packages test themselves: 170 MB, most of it programs of torch's. Modules of torch's stay, whatever they are
# called: the generated list of them is compared with what is there.
$(DEMO_INSTALLED): finish = [ -f $(INSTALLED) ] || find $(VENV)/lib -path '*/site-packages/*' \( -name tests -not -path '*/torch/*' -o -path '*/torch/test' -o -path '*/torch/bin/test_*' \) -prune -exec rm -rf {} +

define python_is_new
import sys; ok = sys.version_info >= (3, 11); ok or print("make: Python 3.11 or newer is needed, this is", sys.version.split()[0], "at", sys.executable + "; name another with PYTHON=/path/to/python3 and remove .venv", file=sys.stderr); sys.exit(not ok)
endef

define python_has_cuda
import click, google.protobuf, grpc, numpy, safetensors, torch; assert torch.cuda.is_available()
endef

# Packages of the JavaScript client's test, from the npm registry.
.PHONY: node-deps
node-deps: $(NODE_INSTALLED)

$(NODE_INSTALLED): tests/node/package.json | $(INSTALLED)
	@echo 'installing the packages of the JavaScript test'
	@npm install --prefix tests/node --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $(NODE_INSTALLED)

# ---- generated files ----------------------------------------------------------------------------------------------

# generate_stubs(folder): messages with types from protoc, services with types from mypy-protobuf.
define generate_stubs
$(PY) -m grpc_tools.protoc --proto_path=proto --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
endef

# ---- the parts of `make check` ------------------------------------------------------------------------------------

.PHONY: check-format check-lint check-types check-proto check-operations check-docker

check-format: $(INSTALLED)
	ruff format --check .

check-lint: $(INSTALLED)
	ruff check .

check-types: $(INSTALLED)
	mypy

check-proto: $(INSTALLED)
	cd proto && buf lint
	@stubs=$$(mktemp -d); trap 'rm -rf "$$stubs"' EXIT; \
	$(call generate_stubs,$$stubs); \
	diff --recursive --brief --exclude=__pycache__ --exclude=tables --exclude=wire --exclude='*.proto' --exclude=__init__.py --exclude=py.typed --exclude='*.json' \
	  proto/tensorcompute "$$stubs"/tensorcompute || { echo 'the committed stubs are stale: run `make proto`' >&2; exit 1; }

check-operations: $(INSTALLED)
	$(PY) -m $(OPERATIONS) --check

check-docker: $(INSTALLED)
	hadolint docker/Dockerfile*
