# make try      a door and an indoor phone on this machine: no hardware, no account, no configuration
# make setup    prepare .venv and nothing else
# make test     every test, real peers included (needs some Debian packages: says which, and asks)
# make check    format, lint, types, imports
# make bench    figures beside other phones', into docs/benchmarks.md
# make pages    docs/settings.md and its schema, when an option has changed

TESTS ?= tests
bin := .venv/bin
# As many as processors, each in a network of its own: stations hear of every cable in theirs.
workers = "$$(nproc)*popen//python=tests/support/own-network.sh $(bin)/python"

.PHONY: help try setup test check bench pages

help:
	@sed -n 's/^# make/make/p' Makefile

try:
	@deploy/setup.sh try
	@exec $(bin)/doorstation try $(ARGS)

setup:
	@deploy/setup.sh dev

test:
	@deploy/setup.sh test
	@$(bin)/python -m pytest -q --dist worksteal --tx $(workers) $(TESTS)

check: setup
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports

bench:
	@deploy/setup.sh test
	@$(bin)/python -m bench $(ARGS)

pages: setup
	@$(bin)/python -c 'from doorstation.settings.page import describe; print(end=describe())' \
		>docs/settings.md
	@$(bin)/python -c 'import json; from doorstation.settings.schema import schema; \
		print(json.dumps(schema(), indent=1, ensure_ascii=False))' >docs/settings.schema.json
