# Everything that is built, checked or started here. "make help" lists it.
# Downloads (Apache Kafka, the ClickHouse engine) are pinned, checked by SHA-256 and kept in
# ${XDG_CACHE_HOME:-~/.cache}/hookline; see scripts/.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
ARGS    ?=
BROKERS ?= 1
PORT    ?= 19092
HOURS   ?= 8
# How many packages are tested at once: those with a real Kafka of their own keep two cores busy.
TEST_P  ?= 2
# What of "hookline demo" the gates run.
CI_DEMO ?= --fast

TOOLS := .cache/tools
# Files that "make generate" writes besides those that say "Code generated".
GENERATED := configs/example.env docs/config.md docs/cli.md docs/metrics.md

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/hookline (static) and bin/hookline-engine (the embedded ClickHouse)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/hookline ./cmd/hookline
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/hookline-engine ./cmd/hookline-engine

.PHONY: setup
setup: ## bring what tests and demo need: Apache Kafka, the ClickHouse engine, a browser
	scripts/kafka.sh jars
	scripts/engine-lib.sh
	scripts/browser.sh || echo "setup: going on: only tests of the console need it" >&2

.PHONY: test
test: build ## all tests, with real Kafka and the ClickHouse engine (PKG=./... RUN=regexp)
	@GO='$(GO)' TEST_P='$(TEST_P)' scripts/test.sh $(PKG)

.PHONY: outages
outages: build ## Kafka away for 5 minutes, ClickHouse for 10, full disks (as root), a million parked deliveries; prints figures
	@GO='$(GO)' TEST_P=1 TEST_TIMEOUT=40m VERBOSE=1 HOOKLINE_E2E_FULL=1 RUN='^Test(KafkaOutage|ClickHouseOutage|DiskFull|MillionParked)$$' scripts/test.sh ./internal/e2e

$(TOOLS)/.built: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	$(GO) -C tools build -o '$(CURDIR)/$(TOOLS)/' tool
	@touch $@

.PHONY: lint
lint: $(TOOLS)/.built ## gofumpt, go vet, staticcheck, exhaustive, go mod tidy -diff
	@GO='$(GO)' TOOLS='$(TOOLS)' scripts/lint.sh

.PHONY: lint-deployments
lint-deployments: ## rules, chart, compose file, Dockerfile, unit and dashboards, by their own tools
	@GO='$(GO)' scripts/lint-deployments.sh

.PHONY: fmt
fmt: $(TOOLS)/.built ## format the sources
	$(TOOLS)/gofumpt -w .

.PHONY: generate
generate: ## write the generated files
	$(GO) generate ./...

.PHONY: generate-check
generate-check: generate ## fail where a generated file is not what "make generate" writes
	@files="$$(git grep -lE '^// Code generated .* DO NOT EDIT\.$$' -- '*.go'; git ls-files -- $(GENERATED))"; \
	git diff --exit-code -- $$files || { echo "generate-check: committing generated files: they are out of date (run 'make generate' and commit)" >&2; exit 1; }

.PHONY: demo
demo: build ## the whole thing in one process, with receivers and sample events (ARGS="--events 1000")
	@lib=$$(scripts/engine-lib.sh) || echo "demo: going on without the ClickHouse engine: no SQL, attempts go to a file" >&2; \
	HOOKLINE_ENGINE_LIB=$$lib bin/hookline demo $(ARGS)

.PHONY: screenshots
screenshots: build ## pictures of the console's pages into docs/img (needs chromium)
	scripts/screenshots.sh

.PHONY: bench
bench: build ## CPU per delivery beside a bare loop, in about 6 minutes (ARGS="-only fan10 -rounds 3")
	$(GO) run ./bench $(ARGS)

.PHONY: bench-short
bench-short: build ## a minute of it, to see that it runs; its figures say little
	$(GO) run ./bench -only 'fan10;mixed endpoints;10% failing' -rounds 1 -deliveries 5000 $(ARGS)

.PHONY: bench-full
bench-full: build ## all scenarios, in about 40 minutes; writes bench/report.md and bench/report.svg
	$(GO) run ./bench -full -timeout 3h -out bench $(ARGS)

.PHONY: bench-pages
bench-pages: ## the console's pages and REST lists over 10 million attempts, in about 10 minutes (ARGS="-attempts 1000000")
	$(GO) run ./bench/pages $(ARGS)

.PHONY: bench-once
bench-once: ## every Go benchmark once, to see that it runs
	$(GO) test -run='^$$' -bench=. -benchtime=1x -timeout 5m ./...

.PHONY: chaos
chaos: ## break processes, brokers, ClickHouse and endpoints for 10 minutes, and prove what came of it (ARGS="-seed 1")
	$(GO) run ./bench/chaos -for 4m -static -subs 50 -backlog 24000 $(ARGS)
	$(GO) run ./bench/chaos -for 4m -brokers 3 -subs 50 -backlog 24000 $(ARGS)

.PHONY: chaos-short
chaos-short: ## three minutes of it, with a fixed seed
	$(GO) run ./bench/chaos -for 100s -static -seed 1 -subs 20 -faults kill,killtwo,pause,blink,stop,join,engine,endpoint,update,delete $(ARGS)

.PHONY: chaos-mutants
chaos-mutants: ## runs with mutants of hookline, each of which must be caught (ARGS="-mutants early-retry")
	$(GO) run ./bench/chaos -mutants all -for 40s -every 1s -seed 1 $(ARGS)

.PHONY: soak
soak: ## the same for HOURS hours
	$(GO) run ./bench/chaos -for $(HOURS)h -brokers 3 $(ARGS)

.PHONY: kafka-up
kafka-up: ## real Apache Kafka on loopback (BROKERS=1|3 PORT=19092)
	@scripts/kafka.sh up --brokers $(BROKERS) --port $(PORT)

.PHONY: kafka-down
kafka-down: ## stop it (PORT=19092); its data stays
	@scripts/kafka.sh down --port $(PORT)

.PHONY: verify-signatures
verify-signatures: ## signed requests, checked by the official libraries in Go, Python and JavaScript, and by openssl
	@GO='$(GO)' scripts/verify-signatures.sh

.PHONY: examples
examples: build ## what the documentation shows, run: producers, receivers with good and forged signatures, commands
	@GO='$(GO)' scripts/examples.sh

.PHONY: ci
ci: ## all gates, as .ci/run runs them
	$(MAKE) lint
	$(MAKE) lint-deployments
	$(MAKE) generate-check
	$(MAKE) test
	$(MAKE) verify-signatures
	$(MAKE) examples
	$(MAKE) bench-once
	$(MAKE) bench-short
	$(MAKE) chaos-short
	$(MAKE) demo ARGS='$(CI_DEMO)'

.PHONY: clean
clean: ## remove what was built; downloads stay
	rm -rf bin dist .cache
