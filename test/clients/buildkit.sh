#!/usr/bin/env bash
# buildkit.sh PART: rootless BuildKit in the three ways that its documents start
# it: a build whose RUN step uses the network. To be run in the rig's world.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh

CLIENT=buildkit
VERSION=$(go version -m "$PREFIX/usr/bin/buildkitd" | awk '$2 == "github.com/moby/buildkit" { print substr($3, 2); exit }')
LOG=$WORK/buildkitd.log

main() {
	one_setup host
	one_setup gvisor-tap-vsock,detached --net=gvisor-tap-vsock --copy-up=/etc --disable-host-loopback --detach-netns
	one_setup slirp4netns,attached --net=slirp4netns --copy-up=/etc --disable-host-loopback
}

# one_setup NAME OPTION... builds with the launcher's options.
one_setup() {
	SETUP=$1
	shift
	if check start start "$@"; then
		check 'RUN with a network' build
		check 'stop' stop
	fi
	check 'nothing left' nothing_left
	keep_log "$LOG"
	end_all
	rm -rf "$WORK/home/.local"
}

start() {
	user rootlesskit --state-dir="$(runtime_dir)/launcher" "$@" buildkitd --oci-worker-snapshotter=native >"$LOG" 2>&1 &
	LAUNCHER=$!
	echo "$LAUNCHER" >"$WORK/launcher.pid"
	wait_for 60 'an answer of buildkitd' ready_or_dead "$LAUNCHER" buildctl debug workers || return
	alive "$LAUNCHER" "$LOG"
}

build() {
	local dir
	dir=$(mktemp -d)
	cp "$WORK/image.tar" "$dir"
	printf 'FROM scratch\nADD image.tar /\nRUN wget -qO /answer http://10.77.0.2:8000/\n' >"$dir/Dockerfile"
	buildctl --debug build --progress=plain --frontend=dockerfile.v0 --local context="$dir" --local dockerfile="$dir" \
		--output type=tar,dest="$dir/out.tar" 2>&1 && tar -xOf "$dir/out.tar" answer
}

buildctl() {
	timeout 120 "$PREFIX/usr/bin/buildctl" --addr "unix://$(runtime_dir)/buildkit/buildkitd.sock" "$@"
}

stop() { end "$(cat "$WORK/launcher.pid")" 30; }

main
