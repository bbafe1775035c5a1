#!/usr/bin/env bash
# nerdctl.sh PART: nerdctl on containerd, as its own containerd-rootless.sh starts
# that. To be run in the rig's world.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh

CLIENT=nerdctl
VERSION=$(go version -m "$PREFIX/usr/bin/nerdctl" | awk '$2 == "github.com/containerd/nerdctl/v2" { print substr($3, 2); exit }')
LOG=$WORK/containerd.log

main() {
	one_setup gvisor-tap-vsock+builtin,detached true
	one_setup gvisor-tap-vsock+builtin,attached false
	one_setup slirp4netns+builtin,detached true
	one_setup gvisor-tap-vsock+bypass4netns,detached true
}

# one_setup NAME DETACH
one_setup() {
	SETUP=$1
	if check start start "$2"; then
		check 'load' nerdctl load -i "$WORK/image.oci"
		check 'run -p' nerdctl run -d --name web -e NAME=web -p 8080:80 -p 127.0.0.1:8081:80 -p 8053:80/udp peer /bin/peer serve :80
		check 'IPv4 LAN' asks lan curl -sf --max-time 5 http://10.77.0.1:8080/
		check 'on 127.0.0.1' asks curl -sf --max-time 5 http://127.0.0.1:8081/
		check 'UDP LAN' asks lan "$WORK/image/bin/peer" udp 10.77.0.1:8053
		check outbound nerdctl exec web wget -qO- http://10.77.0.2:8000/
		check restart restart
		check remove removed
		check stop end "$(cat "$WORK/launcher.pid")" 30
	fi
	check 'nothing left' nothing_left
	keep_log "$LOG"
	end_all
	rm -rf "$WORK/home/.local"
}

start() {
	local pair=${SETUP%,*}
	user CONTAINERD_ROOTLESS_ROOTLESSKIT_NET="${pair%+*}" CONTAINERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER="${pair#*+}" \
		CONTAINERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS="$1" "$PREFIX/usr/bin/containerd-rootless.sh" >"$LOG" 2>&1 &
	LAUNCHER=$!
	echo "$LAUNCHER" >"$WORK/launcher.pid"
	wait_for 60 'an answer of containerd' ready_or_dead "$LAUNCHER" nerdctl info || return
	alive "$LAUNCHER" "$LOG"
}

nerdctl() {
	user CNI_PATH="$PREFIX/usr/lib/cni" NERDCTL_TOML=/nonexistent timeout 60 nerdctl --snapshotter=native --cgroup-manager=none "$@"
}

asks() { wait_for 10 "an answer to $*" answered "$@" && "$@" | sed 's/^web/seen as/'; }

answered() { [[ "$("$@")" == web* ]]; }

restart() { nerdctl restart -t 1 web >/dev/null && asks lan curl -sf --max-time 5 http://10.77.0.1:8080/; }

removed() { nerdctl rm -f web >/dev/null && not lan curl -sf --max-time 5 http://10.77.0.1:8080/; }

main
