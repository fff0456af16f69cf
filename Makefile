# Ebb. `make help` says what there is; CI calls nothing but make (.ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Tools are built from Go modules at these versions and kept outside the checkout.
TEMPORAL_VERSION      := v1.5.1
GOLANGCI_LINT_VERSION := v2.15.0
GOFUMPT_VERSION       := v0.12.0
WORKFLOWCHECK_VERSION := v0.6.0

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
BIN   := $(CACHE)/ebb/bin

# What Debian and Ubuntu call the programs the tests run.
TEST_PACKAGES  := user-mode-linux uml-utilities slirp kmod dmsetup thin-provisioning-tools xfsprogs e2fsprogs
# A browser renders the simulation's report. Ubuntu's is a snap, no package: there the test is skipped.
TEST_PACKAGES  += $(shell . /etc/os-release 2>/dev/null; [ "$$ID" != debian ] || echo chromium)
DEMO_PACKAGES  := $(TEST_PACKAGES) postgresql postgresql-contrib
BENCH_PACKAGES := $(TEST_PACKAGES) fio rsync
FULL_PACKAGES  := $(sort $(DEMO_PACKAGES) $(BENCH_PACKAGES) qemu-system-x86 cpio gcc libc6-dev)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)

# The Temporal server of the tests, and the filesystem of the demo (xfs or ext4).
export EBB_TEMPORAL ?= $(BIN)/temporal
export FS DEMO_KEEP

# The version is set above; a checkout that belongs to somebody else builds, too.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

GO_FILES := find . -name '*.go' -not -path './build/*' -not -path './.*' -print0

# The tests boot nodes, each a process that wants a core.
TEST_FLAGS ?= -p 2 -timeout 40m

.PHONY: help setup build demo test test-full bench enforce simulate lint fmt generate verify clean
.PHONY: need-go need-amd64 tools lint-tools temporal test-packages demo-packages bench-packages full-packages

help: ## show this
	@echo "usage: make TARGET"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo; echo "Needed beforehand: Go and make. The rest is installed when a target wants it: Debian"
	@echo "packages with apt (as root or by sudo), tools into $(BIN)."
	@echo "demo, test, test-full, bench and enforce run on amd64 (x86-64) alone: their nodes are User Mode Linux."
	@echo "FS=ext4 make demo uses ext4 instead of xfs; DEMO_KEEP=1 leaves the demo running."

setup: need-go test-packages demo-packages tools ## install what test, demo and lint need
	@echo "Ready. Tools are in $(BIN)."

build: need-go ## build ebb, ebb-agent and ebb-worker into build/bin
	@mkdir -p build/bin
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o build/bin/ebb ./starter
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o build/bin/ebb-agent ./nodeagent
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o build/bin/ebb-worker ./worker

demo: need-go demo-packages temporal ## watch a live disk grow, shrink and survive a power cut
	go run ./tests/demo

test: need-go test-packages temporal ## run the tests: on real kernels and a real Temporal server
	go test $(TEST_FLAGS) ./...

test-full: need-go full-packages temporal ## every crash and fault test, the demo twice, a quick benchmark (hours)
	EBB_TEST_FULL=1 CGO_ENABLED=1 go test -race -p 1 -timeout 4h ./...
	DEMO_KEEP= FS=xfs go run ./tests/demo
	DEMO_KEEP= FS=ext4 go run ./tests/demo
	go run ./tests/bench --quick

bench: need-go bench-packages temporal ## measure moves, stalls, overhead and footprint
	go run ./tests/bench

enforce: need-go test-packages temporal ## hold ten real disks at their target for 20 minutes of changing load, by policy alone
	EBB_TEST_FULL=1 EBB_ENFORCE_SUMMARY=$(CURDIR)/build/enforce/summary.json go test -count=1 -v -timeout 1h ./tests/enforce

simulate: need-go ## play 10,000 generated disks over 90 days to the planner, with a report
	@mkdir -p build/simulate
	go build -o build/simulate/ebb ./starter
	build/simulate/ebb simulate --generate ai-platform --disks 10000 --days 90 \
	  --summary build/simulate/summary.json --html build/simulate/report.html --csv build/simulate/fleet.csv

lint: lint-tools ## golangci-lint, gofumpt, workflowcheck
	$(BIN)/golangci-lint run ./...
	@unformatted=$$($(GO_FILES) | xargs -0 $(BIN)/gofumpt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi
	$(BIN)/workflowcheck -config .workflowcheck.yaml ./workflows/...

fmt: lint-tools ## format the Go code
	@$(GO_FILES) | xargs -0 $(BIN)/gofumpt -w

generate: need-go ## write docs/cli.md from the commands
	go run ./starter docs --dir docs

verify: need-go lint-tools ## fail when generated files, formatting or go.mod are not up to date
	@mkdir -p build/verify
	go run ./starter docs --dir build/verify
	diff -u docs/cli.md build/verify/cli.md
	@$(GO_FILES) | xargs -0 $(BIN)/gofumpt -d | tee build/verify/gofumpt.diff
	@test ! -s build/verify/gofumpt.diff
	go mod tidy -diff

clean: ## remove what was built in the checkout
	rm -rf build

need-go:
	@scripts/need-go

need-amd64:
	@scripts/need-amd64

tools: lint-tools temporal

lint-tools: need-go
	@scripts/install-tool $(BIN) github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@scripts/install-tool $(BIN) mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
	@scripts/install-tool $(BIN) go.temporal.io/sdk/contrib/tools/workflowcheck@$(WORKFLOWCHECK_VERSION)

temporal: need-go
	@scripts/install-tool $(BIN) github.com/temporalio/cli/cmd/temporal@$(TEMPORAL_VERSION)

test-packages: need-amd64
	@scripts/install-packages $(TEST_PACKAGES)

demo-packages: need-amd64
	@scripts/install-packages $(DEMO_PACKAGES)

bench-packages: need-amd64
	@scripts/install-packages $(BENCH_PACKAGES)

full-packages: need-amd64
	@scripts/install-packages $(FULL_PACKAGES)
	@scripts/fetch-kernel $(CACHE)/ebb/qemu
