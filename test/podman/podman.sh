#!/usr/bin/env bash
# podman.sh SUITE own|ours: all checks, with Podman's own helper or with ours. To be run
# in the rig's world.
set -uo pipefail
. ./lib.sh
. ./sees.sh
. ./life.sh

say() { printf '%s\n' "$*" >&2; }

CLIENT=podman-$1
SETUP=$2
HOME_DIR=/home/tester
PEER=/rig/image/bin/peer
LAN4=10.77.0.2 LAN6=fd77::2

main() {
	local part net
	configure
	VERSION=$(pod --version | sed 's/.*version //')
	pod info >/dev/null 2>&1
	check start pod_quiet import /rig/image.tar peer || return
	for net in one two; do pod_quiet network create "$net"; done
	pod_quiet network create --ipv6 both
	pod_quiet network create --internal closed
	for part in ${PARTS:-clients loopback networks addresses groups refusals users thousand stack kills}; do
		"check_$part"
	done
	pod_quiet network rm -f one two both closed
	check 'nothing left' nothing_of_ours
}

# as_user COMMAND... runs it as the ordinary user.
as_user() {
	setpriv --reuid=1000 --regid=1000 --clear-groups -- env -i PATH="$PATH" HOME="$HOME_DIR" USER=tester XDG_RUNTIME_DIR=/run/user/1000 "$@"
}
pod() { as_user podman "$@"; }

# pod_quiet shows the last line, of what went wrong. Daemons that Podman starts keep its
# output open, so it is no pipe.
pod_quiet() {
	pod "$@" >/tmp/out 2>&1 || { echo "podman $*: $(tail -n 1 /tmp/out)"; return 1; }
}

configure() {
	local conf=$HOME_DIR/.config/containers dirs='"/usr/libexec/podman", "/usr/lib/podman"'
	[ "$SETUP" = own ] || dirs="\"/rig/ours\", $dirs"
	mkdir -p "$conf"
	cat >"$conf/containers.conf" <<-CONF
		[containers]
		cgroups = "disabled"
		log_driver = "k8s-file"
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		runtime = "crun"
		helper_binaries_dir = [$dirs]
	CONF
	printf '[storage]\ndriver = "vfs"\n' >"$conf/storage.conf"
	chown -R 1000:1000 "$HOME_DIR"
}

# serve NAME OPTION... runs a container with the rig's server on :80.
serve() {
	local name=$1
	shift
	pod_quiet run -d --name "$name" "$@" peer /bin/peer serve :80
}

drop() { pod_quiet rm -f -t 0 "$@"; }

own_address() { pod inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" | awk '{ print $1 }'; }

helpers() { pgrep -x rootlessport; }

# nothing_of_ours succeeds once no helper, container or port of the user's is left.
nothing_of_ours() {
	wait_for 20 'the end of the helpers' not helpers || return
	local left
	left=$(ss -Hltnup | grep -v aardvark)$(find /run/user/1000 -path '*/rp/*')
	[ -z "$left" ] || { echo "left: $left"; return 1; }
}

main
