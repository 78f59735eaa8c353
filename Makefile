# make run      install, fetch weights, serve on http://127.0.0.1:8080
# make example  install, replay five experts on four devices under three budgets: a table, a picture
# make test     install, lint, types, import rules, tests
# make lint     the quick part of make test
# make bench    measured claims, one JSON document each
# make soak     load and faults for an hour, one JSON document
# make sbom     every package that serving takes, with hashes: sbom.json (CycloneDX)
# make audit    asks a database of weaknesses about every locked package; needs the Internet

.DEFAULT_GOAL := run
.PHONY: run example test lint bench soak sbom audit install install-dev weights uv artefact

# without uv on the path, pip puts one into a folder of its own
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
export UV_COMPILE_BYTECODE := 1
# where Python writes no bytecode by itself, every start of coe would compile all of it
COMPILE = $(UV) run --no-sync python -m compileall -q coe routers optimizer kernels services

run: install
	@$(UV) run --no-sync coe weights fetch --optional
	@$(UV) run --no-sync coe serve

example: install-dev
	@$(UV) run --no-sync python examples/edge_cloud/run.py

# what goes by real time is run by one process, the rest beside it: tests/conftest.py
test: lint weights
	$(UV) run --no-sync pytest -n 2 --no-loadscope-reorder

lint: install-dev
	$(UV) run --no-sync ruff format --check .
	$(UV) run --no-sync ruff check .
	$(UV) run --no-sync mypy
	$(UV) run --no-sync lint-imports

bench: install-dev weights
	@for script in benchmarks/*/bench.py; do $(UV) run --no-sync python $$script || exit 1; done

sbom: uv
	$(UV) export --quiet --locked --no-group dev --extra embedded --extra redis --format cyclonedx1.5 --output-file sbom.json

audit: uv
	$(UV) audit --locked --no-extra vllm

soak: install-dev
	@$(UV) run --no-sync python benchmarks/load/soak.py

weights: install-dev
	@$(UV) run --no-sync coe weights fetch

install: uv
	@$(UV) sync --locked --no-group dev --extra embedded --extra plots --inexact
	@$(COMPILE)

install-dev: uv
	@$(UV) sync --locked --extra embedded --extra plots --extra fleet
	@$(COMPILE)

uv:
	@$(UV) --version >/dev/null 2>&1 || { python3 -m venv .uv && .uv/bin/pip install --quiet uv; }

# Ask the embedded experts every prompt in data/ and train the shipped artefact on the outcomes.
artefact: install-dev weights
	$(UV) run --no-sync python data/prompts/make.py
	$(UV) run --no-sync coe collect --config coe/data/coe.yaml --run-code \
		--prompts data/prompts/prompts.jsonl --out data/outcomes/embedded.parquet
	$(UV) run --no-sync coe train --config coe/data/coe.yaml \
		--outcomes data/outcomes/embedded.parquet --out coe/data/artefact
