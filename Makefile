# "make help" lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
# Where "make install" puts the AppArmor profile, e.g. /etc/apparmor.d; empty
# where the system has no use for it.
APPARMOR_DIR ?=
# The AppArmor that the profile is for: 4.0, or 3.0 (Debian 12, Ubuntu 22.04).
APPARMOR     ?= 4.0

# Build tags that leave drivers out, e.g. make TAGS=no_gvisortapvsock: see
# docs/BUILDING.md. SHIP_TAGS leave out what would keep the linker from dropping
# dead code (text/template) and HTTP/2, which a Unix socket has no use for.
TAGS         ?=
# What --version says of the sources; empty where nothing is to be said.
COMMIT       ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
SHIP_TAGS    := urfave_cli_no_template,nethttpomithttp2
GOBUILD       = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags "$(SHIP_TAGS),$(TAGS)" -ldflags "-s -w -X rootlesskit/api.commit=$(COMMIT)"

# Flags for "go test", e.g. make test TESTFLAGS="-race -v", and the packages.
# ./test, which takes longer than all others, comes first. Tests wait much and compute
# little, so more of them run at once than there are CPUs.
TESTFLAGS ?=
PACKAGES  ?= ./test ./...

# What make test-kubernetes does: see docs/kubernetes.md.
KUBERNETES ?= all

# The parts of make test-clients: see docs/clients.md.
CLIENTS ?= all
# The suites of make test-podman: see docs/podman.md.
PODMAN  ?= all

COMMANDS := rootlesskit rootlessctl rootlesskit-docker-proxy
# Programs that others start, which are not to be on anybody's PATH.
HELPERS  := rootlessport
TOOL      = $(GO) tool -modfile=tools/go.mod

ARCHS    := amd64 arm64 arm 386 riscv64 ppc64le s390x loong64

.PHONY: all build modules test test-bare test-clients test-podman test-compat test-kubernetes vet-all test-emulated test-kernels mutants lint fmt demo bench bench-kubernetes install dist clean help

all: build

build: modules ## build the commands into bin/
	$(GOBUILD) -o bin/ $(COMMANDS:%=./cmd/%) $(HELPERS:%=./cmd/%)

modules:
	@scripts/fetch-modules $(GO)

test: modules ## run all tests; as root, first make this machine fit for them
	scripts/test-host
	$(GO) run ./test/progress $(PACKAGES) -- -count=1 -timeout=60m -parallel=6 $(TESTFLAGS)

# The original's programs, which test-compat compares with; kept from run to run.
UPSTREAM ?= $(abspath $(or $(XDG_CACHE_HOME),$(HOME)/.cache))/rootlesskit-upstream-v3.3.0

test-compat: $(UPSTREAM)/rootlesskit ## compare with the original RootlessKit, probe by probe
	scripts/test-host
	ROOTLESSKIT_UPSTREAM=$(UPSTREAM) $(GO) test -count=1 -timeout=15m -parallel=8 $(TESTFLAGS) ./test/compat

bench-kubernetes: $(UPSTREAM)/rootlesskit ## measure pods and NodePorts of a rootless Kubernetes against the original; needs root
	UPSTREAM=$(UPSTREAM) TABLE=bench/kubernetes.md test/kubernetes/run bench
	$(GO) run ./bench --render

$(UPSTREAM)/rootlesskit:
	CGO_ENABLED=0 GOFLAGS= GOBIN=$(UPSTREAM) $(GO) install github.com/rootless-containers/rootlesskit/v3/cmd/...@v3.3.0

# The kernels of test-kernels: see docs/kernels.md.
KERNELS ?= all

test-kernels: ## run the checks on older and newer kernels, in virtual machines (KERNELS="ci", "all" or SUITE:ARCH:VERSION)
	test/kernels/run $(KERNELS)

mutants: ## break the program on purpose, in many ways, and see that the tests notice
	scripts/test-host
	$(GO) run ./test/mutants $(MUTANTS)

test-bare: ## the demo and the tests on a bare Debian 12, made with debootstrap (needs root)
	scripts/test-bare

test-clients: ## run Docker, BuildKit and other clients on the launcher (CLIENTS="ci", "all" or parts); needs root
	test/clients/run $(CLIENTS)

test-podman: ## run rootless Podman of Debian's suites with our rootlessport and with its own (PODMAN="ci", "all" or suites); needs root
	test/podman/run $(PODMAN)

test-kubernetes: ## a rootless Kubernetes of two nodes on the launcher (see docs/kubernetes.md); needs root
	test/kubernetes/run $(KUBERNETES)

lint: ## check format, vet, staticcheck, and which package may import which
	@unformatted=$$(gofmt -l .) || exit; \
	if [ -n "$$unformatted" ]; then echo "gofmt is needed on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) depguard ./...

vet-all: $(ARCHS:%=vet/%) ## go vet, tests too, for every architecture of dist

vet/%: force
	GOOS=linux GOARCH=$* GOARM=7 CGO_ENABLED=0 $(GO) vet ./...

# Tests that need no namespace, on emulated processors: 32 and 64 bits, both orders of
# bytes. Names as in GOARCH are qemu's too.
EMULATED := arm riscv64 ppc64le s390x
EMULATED_PACKAGES := ./api ./internal/driver ./internal/driver/gvisor/translate ./internal/eventloop ./internal/ports \
	./internal/procs ./internal/question ./internal/suggest ./internal/unixsock

test-emulated: $(EMULATED:%=emulated/%) ## tests on other processors, emulated by qemu-user

emulated/%: force
	GOARCH=$* GOARM=7 CGO_ENABLED=0 $(GO) test -count=1 -exec qemu-$* $(EMULATED_PACKAGES)

fmt: ## format the sources
	gofmt -w .

demo: build ## serve a page from a rootless namespace and publish it, live
	scripts/demo

bench: ## measure against other port and network drivers (see bench/)
	$(GO) run ./bench

# The licences of what is linked; it goes with every binary.
THIRD_PARTY = scripts/third-party $(GO) "$(SHIP_TAGS),$(TAGS)" $(COMMANDS:%=./cmd/%) $(HELPERS:%=./cmd/%)

install: build ## install commands, man pages, completions, systemd units, licences under DESTDIR/PREFIX
	install -d $(BIN) $(LIBEXEC) $(SHARE)/man/man1 $(LIB)/systemd/user $(LIB)/systemd/system
	install -m 0755 $(COMMANDS:%=bin/%) $(BIN)
	install -m 0755 $(HELPERS:%=bin/%) $(LIBEXEC)
	install -m 0644 docs/man/*.1 $(SHARE)/man/man1
	install -d $(SHARE)/doc/rootlesskit
	install -m 0644 LICENSE $(SHARE)/doc/rootlesskit
	$(THIRD_PARTY) > $(SHARE)/doc/rootlesskit/THIRD_PARTY
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	install -m 0644 contrib/completions/bash/* $(SHARE)/bash-completion/completions
	install -m 0644 contrib/completions/zsh/* $(SHARE)/zsh/site-functions
	install -m 0644 contrib/completions/fish/* $(SHARE)/fish/vendor_completions.d
	$(call install_with_path,contrib/systemd/user/rootlesskit@.service,$(LIB)/systemd/user)
	$(call install_with_path,contrib/systemd/user/rootlesskit@.socket,$(LIB)/systemd/user)
	$(call install_with_path,contrib/systemd/system/rootlesskit@.service,$(LIB)/systemd/system)
	$(call install_with_path,contrib/systemd/system/rootlesskit@.socket,$(LIB)/systemd/system)
ifneq ($(APPARMOR_DIR),)
	install -d $(DESTDIR)$(APPARMOR_DIR)
	$(call install_with_path,contrib/apparmor/$(APPARMOR)/rootlesskit,$(DESTDIR)$(APPARMOR_DIR))
endif

BIN   = $(DESTDIR)$(PREFIX)/bin
LIB   = $(DESTDIR)$(PREFIX)/lib
# Not where Podman looks by itself: see docs/podman.md.
LIBEXEC = $(DESTDIR)$(PREFIX)/libexec/rootlesskit
SHARE = $(DESTDIR)$(PREFIX)/share

# $(call install_with_path,FILE,DIRECTORY) installs a file that names the binary.
install_with_path = sed 's|@BINDIR@|$(PREFIX)/bin|g' $1 > '$2/$(notdir $1)' && chmod 0644 '$2/$(notdir $1)'

dist: $(ARCHS:%=dist/%) ## build the commands for all architectures into dist/, with licences and checksums
	cp LICENSE dist/LICENSE
	$(THIRD_PARTY) > dist/THIRD_PARTY
	cd dist && sha256sum LICENSE THIRD_PARTY $(foreach a,$(ARCHS),$(COMMANDS:%=$a/%) $(HELPERS:%=$a/%)) > SHA256SUMS

dist/%: force
	mkdir -p $@
	GOOS=linux GOARCH=$* GOARM=7 $(GOBUILD) -o $@/ $(COMMANDS:%=./cmd/%) $(HELPERS:%=./cmd/%)

.PHONY: force
force:

clean: ## remove what was built
	rm -rf bin dist

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
