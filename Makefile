# "make help" lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go

# Build tags that leave drivers out, e.g. make TAGS=no_gvisortapvsock: see
# docs/BUILDING.md. SHIP_TAGS leave out what would keep the linker from dropping
# dead code (text/template), and HTTP/2, which a Unix socket has no use for.
TAGS      ?=
SHIP_TAGS := urfave_cli_no_template,nethttpomithttp2
GOBUILD    = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags "$(SHIP_TAGS),$(TAGS)" -ldflags "-s -w"

# Flags for "go test", e.g. make test TESTFLAGS="-race -v", and the packages.
TESTFLAGS ?=
PACKAGES  ?= ./...

COMMANDS := rootlesskit rootlessctl rootlesskit-docker-proxy
TOOL      = $(GO) tool -modfile=tools/go.mod

.PHONY: all build test lint fmt demo bench install clean help

all: build

build: ## build the commands into bin/
	$(GOBUILD) -o bin/ $(COMMANDS:%=./cmd/%)

test: ## run all tests; as root, first make this machine fit for them
	scripts/test-host
	$(GO) test -count=1 -timeout=12m $(TESTFLAGS) $(PACKAGES)

lint: ## check format, vet, staticcheck, and which package may import which
	@unformatted=$$(gofmt -l .) || exit; \
	if [ -n "$$unformatted" ]; then echo "gofmt is needed on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) depguard ./...

fmt: ## format the sources
	gofmt -w .

demo: build ## serve a page from a rootless namespace and publish it, live
	scripts/demo

bench: ## measure against other port and network drivers (see bench/)
	$(GO) run ./bench

install: build ## install the commands and man pages under DESTDIR/PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0755 $(COMMANDS:%=bin/%) $(DESTDIR)$(PREFIX)/bin
	install -m 0644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1

clean: ## remove what was built
	rm -rf bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
