.DEFAULT_GOAL := help
.PHONY: bench-kube bench-llm help demo up down logs images control-plane setup doctor test test-kube check bench fmt lint locks openapi clean
SHELL := /bin/sh
# The tests start hundreds of processes: without bytecode on disk each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
# The system's Python runs devaipod_web.host until .venv is there; `make PYTHON=python3.12 up` chooses one.
HOST = python=$$(PYTHON="$(PYTHON)" sh devaipod_web/host/find-python.sh) && "$$python" -m devaipod_web.host
BIN := .venv/bin
# Of tests: PYTEST="-k promote -x" make test; -n 0 runs them in one process, with output as it comes.

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: ## Everything from nothing, and a finished first run; again: one more run
	@$(HOST) demo

up: ## Everything from nothing, and the server in the background
	@$(HOST) up

down: ## End the server and podman's service; pods go on
	@$(HOST) down

logs: ## Follow the server's log
	@$(HOST) logs

images: ## Build the images, or find them in the local store; other agents: AGENTS="codex gemini", or all
	@$(HOST) images --agents "$(AGENTS)"

control-plane: ## Build the control plane's own image, for a cluster
	@$(HOST) control-plane

setup: ## Packages, .venv, podman's service and images, with what tests need
	@$(HOST) setup --dev

doctor: ## Say what is wrong on this host, and what mends it
	@$(HOST) doctor

test: setup ## The whole test suite: real podman, agents, Chromium
	@$(HOST) test -n 3 --dist loadfile --no-loadscope-reorder -q -m "not kube" $(PYTEST)

# schemathesis: slow as well, and making its tests alone takes each process five seconds.
check: ## ruff, mypy and the unit tests: under a minute
	@$(HOST) venv --dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy devaipod_web pods tests \
		&& $(BIN)/pytest -q -n 2 -m "not podman and not browser and not slow and not kube" \
			--ignore tests/api/test_schemathesis.py $(PYTEST)

test-kube: ## The tests on the cluster that KUBECONFIG names: real pods, and the control plane in it
	@test -n "$$KUBECONFIG" || { echo "make test-kube needs a cluster: KUBECONFIG must name the kubeconfig of one where you may do everything" >&2; exit 1; }
	@$(HOST) setup --dev
	@$(HOST) control-plane
	@$(HOST) test -n 3 --dist loadfile --no-loadscope-reorder -q -m kube $(PYTEST)

bench-llm: ## What the gateway adds to a model request, beside LiteLLM and a bare pass-through
	@$(HOST) venv --dev
	@$(BIN)/python -m tests.bench.llm

bench-kube: setup ## On the cluster that KUBECONFIG names: click to agent, API calls of a run, requests with idle runs
	@$(BIN)/python -m tests.bench.kube $(BENCH)

bench: setup ## The figures of docs/develop/benchmarks.md
	@$(HOST) bench

fmt: ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: ## ruff and mypy alone
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy devaipod_web pods tests

locks: ## Write the lock files anew from pyproject.toml and the images' manifests
	@sh images/locks.sh

openapi: ## Write docs/openapi.json anew from the code
	@$(HOST) venv --dev
	@$(BIN)/python manage.py openapi

clean: ## End and remove everything of this installation: server, pods, volumes, DEVAIPOD_HOME
	@$(HOST) clean
