#!/usr/bin/env bash
# nerdctl.sh PART: nerdctl and containerd, as nerdctl's own containerd-rootless.sh
# starts it, attached and detached, and with containers that are marked to have native
# ports, where that is turned on and where it is not. To be run in the rig's world.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh
. ./docker-checks.sh

CLIENT=nerdctl
VERSION=$(go version -m "$PREFIX/usr/bin/nerdctl" | awk '$2 == "github.com/containerd/nerdctl/v2" { print substr($3, 2); exit }')
LOG=$WORK/containerd.log

main() {
	local socket=--bypass4netnsd-socket=$(runtime_dir)/bypass4netnsd.sock
	one_setup gvisor-tap-vsock builtin attached
	one_setup gvisor-tap-vsock builtin detached
	one_setup slirp4netns builtin detached
	one_setup gvisor-tap-vsock bypass4netns detached,marked "$socket"
	one_setup gvisor-tap-vsock bypass4netns detached,native "$socket" --disable-host-loopback=false
}

# one_setup NET PORT_DRIVER OPTIONS [FLAG...]
one_setup() {
	NET=$1 PORT_DRIVER=$2 OPTIONS=$3
	SETUP=$NET+$PORT_DRIVER,$OPTIONS
	: >"$LOG"
	rm -rf "$(runtime_dir)"/* "$WORK/home"/{*,.[a-z]*} 2>/dev/null
	if check start start "${@:4}"; then
		check_containers
		check 'second network' second_network
		check 'swap of a port' swap
		check 'stop' stop
	fi
	end_all
	check 'nothing left' nothing_left
	keep_log "$LOG"
	rm -rf "$WORK/home/.local"
}

# check_containers leaves out what nerdctl has not: random ports, and IPv6 unless a
# network is made for it.
check_containers() {
	check 'run -p' serve web -p 8080:80 -p 127.0.0.1:8081:80 -p 8053:80/udp -p 8090-8092:80-82 || return
	check 'IPv4 loopback' get web 127.0.0.1:8080
	check 'IPv4 LAN' get web 10.77.0.1:8080 lan
	check 'on 127.0.0.1' get web 127.0.0.1:8081
	check 'only on 127.0.0.1' refused 10.77.0.1:8081 lan
	check 'UDP loopback' get web 127.0.0.1:8053/udp
	check 'UDP LAN' get web 10.77.0.1:8053/udp lan
	check 'range' get web 10.77.0.1:8092 lan
	[[ $OPTIONS != *,* ]] || check 'way of the ports' way
	check 'on a second address' second_address
	check 'exec, outbound' docker exec web wget -qO- http://10.77.0.2:8000/
	check 'remove' removed
}

# way tells whether TCP ports are native, as they should be where that is turned on.
way() {
	local native
	native=$(user rootlessctl --socket "$(runtime_dir)/containerd-rootless/api.sock" list-ports --wide | grep -c native)
	echo "$native native ports"
	case $OPTIONS in
	*native) [ "$native" -gt 0 ] ;;
	*) [ "$native" -eq 0 ] ;;
	esac
}

start() {
	local detach=true
	[[ $OPTIONS != attached* ]] || detach=false
	user CONTAINERD_ROOTLESS_ROOTLESSKIT_NET="$NET" CONTAINERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER="$PORT_DRIVER" \
		CONTAINERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS=$detach CONTAINERD_ROOTLESS_ROOTLESSKIT_FLAGS="$*" \
		containerd-rootless.sh >>"$LOG" 2>&1 &
	LAUNCHER=$!
	echo "$LAUNCHER" >"$WORK/launcher.pid"
	wait_for 60 'an answer of containerd' ready_or_dead "$LAUNCHER" docker ps || return
	alive "$LAUNCHER" "$LOG" || return
	docker image inspect peer 2>/dev/null | grep -q . || docker image import "$WORK/image.tar" peer >/dev/null
}

# docker is nerdctl here, for the checks of Docker. Containers that are to be native
# are marked.
docker() {
	local mark=()
	if [ "$1" = run ] && [[ $OPTIONS == *,* ]]; then
		shift
		mark=(run --annotation nerdctl/bypass4netns=true)
	fi
	user CNI_PATH="$PREFIX/usr/lib/cni" timeout 60 nerdctl --snapshotter=native "${mark[@]}" "$@"
}

# stop stops the containers first: their shims outlive containerd.
stop() {
	local all
	mapfile -t all < <(docker ps -aq)
	[ ${#all[@]} -eq 0 ] || docker rm -f "${all[@]}" >/dev/null
	end "$(cat "$WORK/launcher.pid")" 30
}

main
