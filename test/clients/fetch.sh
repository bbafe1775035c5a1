# shellcheck shell=bash
# Where the clients' programs come from. fetch_NAME PART prints the directory
# that the part's programs are below (usr/bin, usr/sbin). Packages of newer Debian
# suites are unpacked there, and never installed: Debian's own stays as it is.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rootlesskit-clients
export GOFLAGS=${GOFLAGS:-}

# private_apt SUITE TOOL ARGUMENT... runs apt with a state of its own.
private_apt() {
	local dir=$CACHE/apt-$1 tool=$2
	shift 2
	"$tool" -q -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}

# debs SUITE[-NAME] PACKAGE... unpacks the suite's packages into one directory,
# and prints it. It is made once.
debs() {
	local suite=${1%%-*} dir=$CACHE/$1 state=$CACHE/apt-$1 deb
	shift
	echo "$dir"
	[ ! -e "$dir/complete" ] || return 0
	rm -rf "$dir"
	mkdir -p "$dir" "$state"/state/lists/partial "$state"/cache/archives/partial "$state/debs"
	: >"$state/status"
	printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n' \
		/usr/share/keyrings/debian-archive-keyring.gpg "$suite" >"$state/sources.list"
	say "fetching from Debian $suite: $*"
	private_apt "${dir##*/}" apt-get update >"$state/log" 2>&1 &&
		(cd "$state/debs" && private_apt "${dir##*/}" apt-get download "$@") >>"$state/log" 2>&1 || {
		tail -n 3 "$state/log" >&2
		return 1
	}
	for deb in "$state"/debs/*.deb; do
		dpkg-deb -x "$deb" "$dir" || return
	done
	rm -rf "$state"
	chmod -R a+rX "$dir"
	touch "$dir/complete"
}

# original builds the launcher that failures are compared with, once, where make
# test-compat has it too.
original() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/rootlesskit-upstream-v3.3.0
	echo "$dir"
	[ -x "$dir/rootlesskit" ] || (cd / && CGO_ENABLED=0 GOFLAGS='' GOBIN=$dir go install github.com/rootless-containers/rootlesskit/v3/cmd/...@v3.3.0)
}

fetch_docker() {
	case $1 in
	docker-29) built_docker docker29 29 ;;
	docker-bookworm) debs bookworm docker.io containerd tini ;;
	docker-trixie) debs trixie docker.io docker-cli docker-buildx containerd tini ;;
	docker-sid) debs sid docker.io docker-cli docker-buildx containerd tini ;;
	esac
}

# built_docker MODULE MAJOR builds the engine of a release that Debian does not have, with
# its own script, beside Debian's client and containerd, and with a runc that knows what
# its builds ask for. The module proxy does not tell the release's number.
built_docker() {
	local dir moby=github.com/moby/moby/v2
	ensure_packages gcc libc6-dev libseccomp-dev pkg-config >&2 || return
	dir=$(debs "sid-$1" docker-cli docker-buildx containerd tini) || return
	say "building Docker $2"
	(
		cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "-X $moby/dockerversion.Version=$2+moby-$(go list -m -f '{{.Version}}' $moby)" \
			-o "$dir/usr/bin/" $moby/cmd/dockerd $moby/cmd/docker-proxy &&
			CGO_ENABLED=1 go build -trimpath -tags seccomp -o "$dir/usr/bin/" github.com/opencontainers/runc &&
			install -D -m 0755 -t "$dir/usr/share/docker.io/contrib" "$(go list -m -f '{{.Dir}}' $moby)/contrib/dockerd-rootless.sh"
	) && echo "$dir"
}

# built DIRECTORY PACKAGE... builds the programs of a module that is nothing but a
# list of what they depend on.
built() {
	local module=$1 dir=$CACHE/$1
	shift
	echo "$dir"
	say "building: $*"
	(cd "$module" && CGO_ENABLED=0 go build -trimpath -o "$dir/usr/bin/" "$@")
}

fetch_buildkit() {
	built buildkit github.com/moby/buildkit/cmd/buildctl github.com/moby/buildkit/cmd/buildkitd
}

fetch_servers() {
	ensure_packages nginx postgresql-15 redis-server && echo /
}

fetch_containerd() {
	ensure_packages crun && fetch_docker "docker-${1#*-}"
}

# fetch_nerdctl builds nerdctl beside a containerd and the plugins of its networks. The
# script that starts containerd is nerdctl's own.
fetch_nerdctl() {
	local dir
	dir=$(debs sid-nerdctl containerd containernetworking-plugins) || return
	say 'building nerdctl'
	(
		cd nerdctl && CGO_ENABLED=0 go build -trimpath -o "$dir/usr/bin/" github.com/containerd/nerdctl/v2/cmd/nerdctl &&
			install -m 0755 "$(go list -m -f '{{.Dir}}' github.com/containerd/nerdctl/v2)/extras/rootless/containerd-rootless.sh" "$dir/usr/bin/"
	) && echo "$dir"
}
