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
	install -d -o "$TEST_USER" "$WORK/rootfs"
	user tar -C "$WORK/rootfs" -xf "$WORK/image.tar"
	one_setup runc,attached runc
	one_setup runc,detached runc --detach-netns
	# Debian 12's crun does not know the containers of containerd 2, and wants no
	# hybrid of cgroup v1 and v2.
	[ "${VERSION%%.*}" -lt 2 ] || return 0
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	one_setup crun,attached crun
}

# one_setup NAME RUNTIME [OPTION]
one_setup() {
	SETUP=gvisor-tap-vsock+builtin,$1
	RUNTIME=$(command -v "$2")
	if check start start "${@:3}"; then
		check 'a container' serve
		check 'published to the LAN' published
		check exec ctr task exec --exec-id x web /bin/true
		check remove remove
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

# serve starts a container without a cgroup, which this user may not make, on the launcher's network; with a detached one, a
# container is led there as nerdctl does it, by the path of the namespace.
serve() {
	local net=--net-host
	[ ! -e "$STATE/netns" ] || net=--with-ns=network:$STATE/netns
	ctr run -d --cgroup= --cpu-shares=0 "$net" --env NAME=web --runc-binary="$RUNTIME" --rootfs \
		"$WORK/rootfs" web /bin/peer serve :80
}

published() {
	user rootlessctl --socket "$STATE/api.sock" add-ports 0.0.0.0:8080:80/tcp >/dev/null &&
		wait_for 10 'an answer from the LAN' lan curl -sf --max-time 5 http://10.77.0.1:8080/ &&
		lan curl -sf http://10.77.0.1:8080/ | sed 's/^web/seen as/'
}

# remove ends the container's shim too, which a stop of containerd leaves there.
remove() {
	ctr task kill -s KILL web &&
		wait_for 10 'the end of the container' ctr task rm web && ctr container rm web
}

main
