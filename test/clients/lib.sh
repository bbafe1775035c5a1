# shellcheck shell=bash
# What the parts share. To be sourced by bash, after scripts/lib.sh.

# The pairs of a network and a port driver.
pairs=(
	gvisor-tap-vsock+builtin slirp4netns+builtin
	gvisor-tap-vsock+gvisor-tap-vsock slirp4netns+slirp4netns
	pasta+implicit pasta+pesto
	gvisor-tap-vsock+bypass4netns
)

step() { printf '\n### %s\n' "$*" >&2; }

# record CLIENT VERSION SET-UP CHECK PASS|FAIL|SKIP REASON shows and keeps a result.
record() {
	local reason
	reason=$(tr '\n\t' '  ' <<<"$6" | cut -c1-300)
	printf '%4d s  %s  %-10s %-8s %-40s %-22s %s\n' "$SECONDS" "$5" "$1" "$2" "$3" "$4" "$reason" >&2
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5" "$reason" >>"$RESULTS"
}

# skipped is the exit code of a check that says nothing of the launcher.
skipped=77

# check NAME COMMAND... runs the command, whose last line of output is the
# reason. The caller sets CLIENT, VERSION and SETUP.
check() {
	local name=$1 out rc=0
	shift
	out=$("$@" 2>&1) || rc=$?
	out=$(grep -v "^See '" <<<"$out" | tail -n 1)
	case $rc in
	0) record "$CLIENT" "$VERSION" "$SETUP" "$name" PASS "$out" ;;
	"$skipped") record "$CLIENT" "$VERSION" "$SETUP" "$name" SKIP "$out" ;;
	*) record "$CLIENT" "$VERSION" "$SETUP" "$name" FAIL "${out:-exit code $rc of $*}" ;;
	esac
	return "$rc"
}

# wait_for SECONDS WHAT COMMAND... repeats the command until it succeeds.
wait_for() {
	local seconds=$1 what=$2 end
	shift 2
	end=$((SECONDS + seconds))
	until "$@" >/dev/null 2>&1; do
		if [ "$SECONDS" -ge "$end" ]; then
			say "$what: not within $seconds s"
			return 1
		fi
		sleep 0.1
	done
}

# ready_or_dead PID COMMAND... succeeds where the command does, or the process ended.
ready_or_dead() { "${@:2}" || ! kill -0 "$1"; }

# alive PID LOG fails with an error of the log where the process has ended, other than
# that it has.
alive() {
	kill -0 "$1" 2>/dev/null || {
		grep -E 'error|fail' "$2" | grep -v ' exited: ' | tail -n 1
		return 1
	}
}

# keep_log FILE copies it to where it outlives the rig, if that was asked for.
keep_log() {
	local name=$CLIENT-$VERSION-$SETUP.log
	[ -z "$KEEP" ] || cp "$1" "/var/tmp/clients-${name//\//-}"
}

# not COMMAND... succeeds where the command fails.
not() { ! "$@"; }

# lan COMMAND... runs it on the other machine of the LAN.
lan() { ip netns exec lan "$@"; }

# user COMMAND... runs it as the ordinary user, in the background or not, with
# the launcher, or another in $LAUNCHER_DIR, and the part's programs first on its PATH.
user() {
	local PATH=${LAUNCHER_DIR:-$WORK/bin}:$PREFIX/usr/bin:$PREFIX/usr/sbin:$PATH
	as_test_user env HOME="$WORK/home" "$@"
}

runtime_dir() { echo "/run/user/$(id -u "$TEST_USER")"; }

# processes prints those of the ordinary user and of its subordinate ids.
processes() {
	ps -e -o pid=,uid=,stat=,args= | awk '$2 >= 1000 && $3 !~ /^Z/'
}

# nothing_left succeeds once no process of the ordinary user is there, no socket
# listens but those of the rig, and nothing of the launcher's is in /tmp.
nothing_left() {
	local left
	wait_for 20 'the end of all processes' no_processes || {
		processes
		return 1
	}
	left=$(ss -Hltnup)$(find /tmp -name 'rootlesskit*' -o -name 'run-*')
	[ -z "$left" ] || {
		echo "left: $left"
		return 1
	}
}

no_processes() { [ -z "$(processes)" ]; }

# end PID SECONDS sends SIGTERM, and waits for the end.
end() {
	kill -TERM "$1" 2>/dev/null || true
	wait_for "$2" "the end of process $1 after SIGTERM" not kill -0 "$1" || {
		kill -KILL "$1"
		return 1
	}
}

# end_all kills what is left of a set-up, so that the next one begins afresh.
end_all() {
	processes | awk '{ print $1 }' | xargs -r kill -KILL 2>/dev/null || true
	wait_for 20 'the end of what was killed' no_processes || true
}
