#!/usr/bin/env bash
# containerd.sh PART: containerd with ctr, under the launcher's options of
# containerd-rootless.sh, with runc and crun. To be run in the rig's world.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh

CLIENT=containerd
VERSION=$(user containerd --version | sed 's/.*containerd [^ ]* *//; s/[~+ ].*//')
STATE=$(runtime_dir)/launcher
LOG=$WORK/containerd.log

main() {
	one_setup runc,attached runc
	one_setup crun,attached crun
	one_setup runc,detached runc --detach-netns
}

# one_setup NAME RUNTIME [OPTION]
one_setup() {
	SETUP=gvisor-tap-vsock+builtin,$1
	RUNTIME=$(command -v "$2")
	if check start start "${@:3}"; then
		check 'a container' serve
		check 'published to the LAN' published
		check exec ctr task exec --exec-id x web /bin/true
		check kill ctr task kill -s KILL web
		check stop end "$(cat "$WORK/launcher.pid")" 30
	fi
	check 'nothing left' nothing_left
	keep_log "$LOG"
	end_all
	rm -rf "$WORK/home/.local"
}

# What containerd-rootless.sh does inside.
inside='
set -e
rm -f /run/containerd /run/xtables.lock /var/lib/containerd /var/lib/cni /etc/containerd
mkdir -p "$HOME/.local/share/containerd" /var/lib/containerd
mount --bind "$HOME/.local/share/containerd" /var/lib/containerd
exec containerd'

start() {
	local address=$STATE/none
	user rootlesskit --state-dir="$STATE" --net=gvisor-tap-vsock --mtu=65520 \
		--slirp4netns-sandbox=auto --slirp4netns-seccomp=auto --disable-host-loopback --port-driver=builtin \
		--copy-up=/etc --copy-up=/run --copy-up=/var/lib --propagation=rslave "$@" \
		sh -c "$inside" >"$LOG" 2>&1 &
	LAUNCHER=$!
	echo "$LAUNCHER" >"$WORK/launcher.pid"
	wait_for 60 'an answer of containerd' ready_or_dead "$LAUNCHER" ctr version || return
	alive "$LAUNCHER" "$LOG"
}

# inside COMMAND... runs it in the launcher's namespaces.
in_launcher() {
	local net=()
	[ -e "$STATE/netns" ] || net=(--net)
	user timeout 60 nsenter --target="$(cat "$STATE/child_pid")" --user --preserve-credentials --mount "${net[@]}" "$@"
}

ctr() { in_launcher ctr "$@"; }

# serve starts a container on the launcher's network; with a detached one, a
# container is led there as nerdctl does it, by the path of the namespace.
serve() {
	local net=--net-host
	[ ! -e "$STATE/netns" ] || net=--with-ns=network:$STATE/netns
	ctr run -d --snapshotter=native "$net" --env NAME=web --runc-binary="$RUNTIME" --rootfs "$WORK/image" web /bin/peer serve :80
}

published() {
	user rootlessctl --socket "$STATE/api.sock" add-ports 0.0.0.0:8080:80/tcp >/dev/null &&
		wait_for 10 'an answer from the LAN' lan curl -sf --max-time 5 http://10.77.0.1:8080/ &&
		lan curl -sf http://10.77.0.1:8080/ | sed 's/^web/seen as/'
}

main
