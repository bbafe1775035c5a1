# What the checks share. One line a check: CHECK NAME PASS|FAIL ...
PATH=/usr/sbin:/usr/bin
rk=/opt/rk peer=/opt/rk/peer
tmp=/tmp/checks
mkdir -p $tmp && chmod 777 $tmp && cd $tmp || exit

# as COMMAND... runs it as the ordinary user.
user=(env -i HOME=/home/penguin USER=penguin XDG_RUNTIME_DIR=/run/user/1000 PATH=$rk:$PATH
	setpriv --reuid 1000 --regid 1000 --init-groups)
as() { "${user[@]}" "$@"; }

# run OPTION... COMMAND... runs rootlesskit to its end.
run() { as timeout 300 rootlesskit "$@" 2>&1; }

# check NAME PATTERN TEXT
check() {
	# shellcheck disable=SC2053
	if [[ $3 == $2 ]]; then
		echo "CHECK $1 PASS ${3:0:150}"
	else
		echo "CHECK $1 FAIL want '$2' got '${3:0:400}'"
		return 1
	fi
}

# same NAME PATTERN OPTION... COMMAND... checks what a run prints. One that fails is tried
# with the original, where that is here: the failure may be the kernel's.
same() {
	local name=$1 want=$2
	shift 2
	check "$name" "$want" "$(run "$@" | tr '\n' ' ')" || [ ! -e /opt/up/rootlesskit ] ||
		echo "INFO $name, the original: $(as timeout 300 /opt/up/rootlesskit "$@" 2>&1 | tr '\n' ' ' | cut -c1-300)"
}

# poll SECONDS COMMAND... repeats it until it succeeds. Emulation on a busy machine is
# slow, so the bounds are wide.
poll() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}

# start NAME OPTION... COMMAND... runs rootlesskit in the background until the command
# prints "ready": $job, $child, $state.
start() {
	local name=$1
	shift
	state=$tmp/state-$name err=$tmp/$name.err
	(exec "${user[@]}" rootlesskit --state-dir=$state "$@") >$tmp/$name.out 2>$err &
	job=$!
	poll 300 grep -q ready $tmp/$name.out || check "$name-start" ready "$(tail -n 3 $tmp/$name.out $err | tr '\n' '|')"
	child=$(cat $state/child_pid)
}

# stop ends it, and returns its exit code.
stop() {
	kill -TERM "$job"
	poll 300 gone || { check stop "an end" "$job goes on"; kill -9 "$job"; }
	wait "$job"
}

gone() { ! kill -0 "$job" 2>/dev/null; }
idle() { ! pgrep -u penguin >/dev/null; }

ctl() { as rootlessctl --socket=$state/api.sock "$@" 2>&1 | tr '\n' ' '; }

# client, inside and here run a command on the client's host, in the namespace, and on this host.
client() { ip netns exec client timeout 300 "$@" 2>&1 | tr '\n' ' '; }
inside() { as nsenter -t "$child" -U --preserve-credentials -n -m timeout 300 "$@" 2>&1 | tr '\n' ' '; }
here() { timeout 300 "$@" 2>&1 | tr '\n' ' '; }

# world makes the client's host: 10.93.0.2 and fd93::2, with a name server and a server.
world() {
	ip netns add client
	ip link add uplink type veth peer name eth0 netns client
	ip addr add 10.93.0.1/24 dev uplink && ip link set uplink up
	ip -n client addr add 10.93.0.2/24 dev eth0
	ip -n client link set lo up && ip -n client link set eth0 up
	v6=
	if [ -e /proc/net/if_inet6 ]; then
		v6=1
		ip addr add fd93::1/64 dev uplink nodad
		ip -n client addr add fd93::2/64 dev eth0 nodad
	fi
	echo nameserver 10.93.0.2 >/etc/resolv.conf
	ip netns exec client $peer dns 10.93.0.2:53 10.93.0.2 &
	world=$!
	ip netns exec client $peer serve 9000 >/dev/null &
	world="$world $!"
}

said() { grep -o -E 'level=(WARN|ERROR).*' "$err" | cut -c1-400 | sed "s/^/INFO $1: /" | head -n "${2:-3}"; }

tcp='-p 0.0.0.0:8080:80/tcp' both='-p 0.0.0.0:8080:80/tcp -p 0.0.0.0:8080:80/udp'
gvisor='--net=gvisor-tap-vsock --copy-up=/etc'
