# Copyright The micropod Authors.
# SPDX-License-Identifier: Apache-2.0
#
# Few verbs, thin over go. A line that starts with "##" documents the target below it: `make help` prints those.

GO ?= go
# The binaries are static: the daemon re-executes its own binary inside namespaces, and the agent is a guest's only file.
export CGO_ENABLED := 0

BIN := bin
# What `micropod version` says: the nearest tag, or the commit.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/micropod/micropod/internal/version.Version=$(VERSION) \
	-X github.com/micropod/micropod/internal/version.Commit=$(shell git rev-parse HEAD 2>/dev/null)
# The agent sits in the memory of every machine and is copied into it at boot (bytes).
AGENT_MAX := 8388608

.DEFAULT_GOAL := help
.PHONY: help build build-cover deb demo test check lint generate bench soak kvmhost kvmhost-shell clean

## help: print this
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## build: bin/micropod, bin/micropodd and bin/micropod-agent
build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/micropod ./cmd/micropod
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/micropodd ./cmd/micropodd
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/micropod-agent ./cmd/micropod-agent
	@scripts/check-size.sh $(BIN)/micropod-agent $(AGENT_MAX)

# The same three with coverage counters, for the end-to-end tests (GOCOVERDIR says where they write). The agent, which has
# no such folder, hands its counters over the guest channel: that is what the tag is for.
build-cover:
	@mkdir -p $(BIN)/cover
	$(GO) build -trimpath -cover -covermode=atomic -coverpkg=./... -o $(BIN)/cover/ ./cmd/micropod
	$(GO) build -trimpath -cover -covermode=atomic -coverpkg=./... -tags cover -o $(BIN)/cover/ ./cmd/micropodd ./cmd/micropod-agent

## deb: a Debian package of the binaries in bin/, with completions, manual pages and systemd's units
deb: build
	@scripts/deb.sh

## demo: install what is missing, build, make a Debian image from packages, run it in a microVM
demo:
	@scripts/demo.sh

## test: install what is missing, run every test (real machines included), print the coverage (at most 15 minutes)
test:
	@scripts/test.sh

## kvmhost: what runs with Firecracker, in a KVM host made in software: the conformance suite of engines, the core of the end-to-end tests
kvmhost: build
	MICROPOD_TEST_ALL=1 MICROPOD_KVMHOST=1 $(GO) test -p 1 -timeout 30m -v -run 'TestConformance|TestProbe|TestInKVMHost|TestPrograms|TestRun$$|TestInstallScript|TestVMMDiesAtEachStage|TestStartsThatCannotBe|TestSnapshotOnAFullDisk|TestUnjailed' ./internal/vmm/firecracker ./test/kvmhost ./test/e2e

## kvmhost-shell: a shell in that host, with micropod, Firecracker and its jailer installed
kvmhost-shell: build
	@$(GO) run ./test/kvmhost/shell -bin $(BIN)

## check: install what is missing; what needs no machine: vet, staticcheck, the repository's rules, short tests (at most 2 minutes)
check:
	@scripts/install-deps.sh run test
	@$(MAKE) --no-print-directory lint
	$(GO) test -p 2 -short ./...

## lint: go vet, staticcheck and gofmt
lint:
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@scripts/check-format.sh

## generate: make the Go files of api/ from the .proto files again (needs protobuf-compiler)
generate:
	@scripts/generate.sh

## bench: measure beside peers in the same run; prints a table and writes bench.json
bench: build
	@scripts/install-deps.sh run bench
	$(GO) run ./test/bench -out bench.json

## soak: the tests that take longer than `make test` may
soak: build
	$(GO) test -p 1 -timeout 4h -tags soak -run Soak ./test/...

## clean: remove what the other verbs made (bin, coverage, .cache)
clean:
	rm -rf $(BIN) coverage .cache bench.json
