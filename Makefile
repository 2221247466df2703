# `make` alone prints this help. Everything runs without containers; see deploy/native.
#
# A shell without a login may lack cargo's directory in its PATH, and even HOME.
SHELL := /bin/sh
HOME ?= $(shell getent passwd "$$(id -u)" | cut -d: -f6)
export HOME
CARGO ?= $(shell command -v cargo || echo "$${CARGO_HOME:-$(HOME)/.cargo}/bin/cargo")
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
NATIVE := $(TARGET)/release/native
# If make is killed outright, the demo is told to stop as well.
WITH_ME = $(shell setpriv --pdeathsig TERM true 2> /dev/null && echo setpriv --pdeathsig TERM)

.DEFAULT_GOAL := help
.PHONY: help install build release fmt fmt-check lint check test test-long test-timescale fuzz bench demo up down status logs clean

help:
	@awk 'BEGIN { print "usage: make TARGET" } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { split($$0, part, ":.*## "); printf "  %-15s %s\n", part[1], part[2] }' $(MAKEFILE_LIST)

##@ See it work
demo: release ## play the surge on real servers and print the proof (SURGE=full, POSITIONS_PER_POST=n, SCENARIO=…)
	@exec $(WITH_ME) $(TARGET)/release/loadtest demo
up: release ## start Kafka, Redis, PostgreSQL and the five services in the background
	@exec $(NATIVE) up --with-services
status: ## say what is up, and where
	@if test -x $(NATIVE); then exec $(NATIVE) status; else echo "not up"; fi
logs: ## show the logs of what is up, or was (FOLLOW=1 to go on, NAME=redis-writer for one)
	@if test -x $(NATIVE); then exec $(NATIVE) logs $(if $(FOLLOW),-f) $(NAME); else echo "nothing was ever up"; fi
down: ## stop what `make up` started
	@if test -x $(NATIVE); then exec $(NATIVE) down; else echo "not up"; fi

##@ Build and check
install: ## install what is missing: a C compiler, Python, Java, Maven, Kafka, Redis, PostgreSQL
	@deploy/native/install
build: install ## build everything for debugging
	$(CARGO) build --all-targets
release: install ## build the binaries for speed
	$(CARGO) build --release --bins
fmt: ## format the sources
	$(CARGO) fmt --all
fmt-check: ## fail if a source is not formatted
	$(CARGO) fmt --all --check
lint: install ## clippy; a warning is an error
	$(CARGO) clippy --all-targets -- -D warnings
check: fmt-check lint ## what `make test` checks before it runs the tests
test: check ## format check, lint, and all tests, on real servers
	$(CARGO) build --bins
	$(CARGO) test
test-long: check ## the same with the full counts: a million records and twenty kills
	$(CARGO) build --bins
	LONG=1 $(CARGO) test
fuzz: ## a million random and damaged inputs for every parser (CASES=n)
	PROPTEST_CASES=$(if $(CASES),$(CASES),1000000) $(CARGO) test --release --package event --package location-ingest --lib -- panic
test-timescale: install ## run timescale-writer's whole suite on a TimescaleDB of yours (TIMESCALE_URL=postgres://…, may create databases)
	@test -n "$(TIMESCALE_URL)" || { echo "usage: TIMESCALE_URL=postgres://USER:PASSWORD@HOST[:PORT]/DATABASE make test-timescale" >&2; exit 64; }
	TIMESCALE_URL='$(TIMESCALE_URL)' $(CARGO) test -p timescale-writer
bench: install ## measure what the parts cost, each beside something else in the same run (BENCH=name, ROUNDS=n)
	$(CARGO) build --release --package bench --package redis-writer --package timescale-writer
	@exec $(WITH_ME) $(TARGET)/release/bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH)
clean: down ## stop what is up and remove everything that was built
	$(CARGO) clean
