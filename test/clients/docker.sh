#!/usr/bin/env bash
# docker.sh PART: rootless Docker, as its own dockerd-rootless.sh starts it, with
# the PAIRS of drivers. To be run in a world of the rig.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh
. ./docker-checks.sh

CLIENT=docker
VERSION=$(user dockerd --version | sed 's/.*version \([0-9.]*\).*/\1/')
SETUP=
SCRIPT=$PREFIX/usr/share/docker.io/contrib/dockerd-rootless.sh
STATE=$(runtime_dir)/launcher
LOG=$WORK/dockerd.log

main() {
	local pair options
	for pair in $PAIRS; do
		for options in $(options_of "$pair"); do
			one_setup "${pair%+*}" "${pair#*+}" "$options"
		done
	done
}

# options_of PAIR prints the combinations of options to try. dockerd publishes
# ports in the host without a userland proxy from version 28 on, and has detached
# namespaces, by default, from version 29 on.
options_of() {
	echo attached,proxy
	since 28 echo attached,direct
	since 29 echo detached,proxy
	since 29 echo detached,direct
}

# since MAJOR COMMAND... runs the command where dockerd is as new.
since() { [ "${VERSION%%.*}" -lt "$1" ] || "${@:2}"; }

# one_setup NET PORT_DRIVER OPTIONS runs all checks of one combination.
one_setup() {
	NET=$1 PORT_DRIVER=$2 OPTIONS=$3
	SETUP=$NET+$PORT_DRIVER,$OPTIONS
	: >"$LOG"
	afresh
	if check start start; then
		since 23 check 'version names it' names_launcher
		check_ports
		check_life
		check stop stop
	fi
	end_all
	check 'nothing left' nothing_left
	keep_log "$LOG"
	end_all
	# What containers' roots own is not the user's to remove.
	rm -rf "$WORK/home/.local"
}

# afresh removes what earlier runs have left.
afresh() {
	rm -rf "$(runtime_dir)"/* "$WORK/home"/{*,.[a-z]*} 2>/dev/null || true
}

# start starts dockerd, and loads the image.
start() {
	launch || return
	docker image inspect peer >/dev/null 2>&1 || docker import "$WORK/image.tar" peer >/dev/null
}

launch() {
	local detach=true arguments=(--storage-driver=vfs --debug)
	[[ $OPTIONS != attached* ]] || detach=false
	[[ $OPTIONS != *direct ]] || arguments+=(--userland-proxy=false)
	user DOCKERD_ROOTLESS_ROOTLESSKIT_NET="$NET" DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER="$PORT_DRIVER" \
		DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS=$detach DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--state-dir=$STATE "$SCRIPT" "${arguments[@]}" >>"$LOG" 2>&1 &
	LAUNCHER=$!
	echo "$LAUNCHER" >"$WORK/launcher.pid"
	wait_for 60 'an answer of dockerd' ready_or_dead "$LAUNCHER" docker version || return
	alive "$LAUNCHER" "$LOG"
}

names_launcher() {
	local version
	version=$(docker version | grep -A1 rootlesskit: | tail -n 1)
	[[ $version == *Version:*[0-9]* ]] && echo "${version##* }"
}

docker() {
	HOME=$WORK/home DOCKER_CONFIG=$WORK/docker-config DOCKER_HOST=unix://$(runtime_dir)/docker.sock \
		timeout 60 "$PREFIX/usr/bin/docker" "$@"
}

stop() { end "$(cat "$WORK/launcher.pid")" 30; }

main
