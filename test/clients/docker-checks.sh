# shellcheck shell=bash
# The checks of rootless Docker. To be sourced by docker.sh.

# get NAME ADDRESS:PORT [lan] asks for the page, until it comes from the
# container NAME, and prints who the container says asked.
get() {
	local name=$1 address=$2 from=${3:-} seconds=10
	wait_for "$seconds" "an answer of $name at $address" answers "$name" "$address" "$from" || return
	echo "seen as $(answer "$address" "$from" | sed 's/^[^ ]* //; s/:[0-9]*$//')"
}

answers() { [[ "$(answer "$2" "$3")" == "$1 "* ]]; }

# answer ADDRESS:PORT[/udp] [lan] [SOURCE-PORT]
answer() {
	case $1 in
	*/udp) ${2:-} "$WORK/image/bin/peer" udp "${1%/udp}" "${3:-0}" ;;
	*) ${2:-} curl -sf --max-time 5 ${3:+--local-port "$3"} "http://$1/" ;;
	esac
}

# sees NAME ADDRESS:PORT[/udp] asks from the LAN, until NAME answers and sees who
# asks, address and port.
sees() {
	wait_for 10 "$1 at $2 that sees who asks" sees_once "$1" "$2" || {
		echo "seen as $(answer "$2" lan)"
		return 1
	}
	echo "seen as $(cat "$WORK/seen")"
}

sees_once() {
	local client=10.77.0.2 port=$((20000 + RANDOM % 10000))
	[[ $2 != \[* ]] || client='[fd77::2]'
	echo "$client:$port" >"$WORK/seen"
	[ "$(answer "$2" lan "$port")" = "$1 $client:$port" ]
}

# sees_clients reports whether containers see their clients: pasta and slirp4netns
# lead to the userland proxy, where there is one.
sees_clients() { [[ $PORT_DRIVER == [bg]* ]]; }

# as_bridge NAME ADDRESS:PORT[/udp] asks on loopback: NAME sees its own network's gateway.
as_bridge() {
	local answer gateway
	gateway=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}' "$1")
	answer=$(answer "$2") && echo "seen as $answer, gateway $gateway" && [[ $answer == "$1 ${gateway%% *}:"* ]]
}

refused() {
	! answer "$@" >/dev/null 2>&1 || {
		echo "$1 answers"
		return 1
	}
}

# serve NAME PORTS... starts a container that answers with its name.
serve() {
	local name=$1
	shift
	docker run -d --name "$name" -e NAME="$name" "$@" peer /bin/peer serve :80 :81 :82 >/dev/null
}

remove() { docker rm -f "$@" >/dev/null; }

# has_ipv6 reports whether IPv6 clients are served: by port drivers that publish
# on IPv6, and a userland proxy that leads from there to the container's IPv4.
has_ipv6() { [[ $PORT_DRIVER == [bg]* && $OPTIONS == *proxy ]]; }

check_ports() {
	check 'run -p' serve web -p 8080:80 -p 80 -p 127.0.0.1:8081:80 -p 8053:80/udp -p 8090-8092:80-82 || return
	check 'IPv4 loopback' get web 127.0.0.1:8080
	check 'IPv4 LAN' get web 10.77.0.1:8080 lan
	if has_ipv6; then
		check 'IPv6 loopback' get web '[::1]:8080'
		check 'IPv6 LAN' get web '[fd77::1]:8080' lan
	fi
	# pasta, left to find what is listened on, leaves out the ports that dockerd
	# takes at random.
	[ "$PORT_DRIVER" = implicit ] || check 'random port' random_port
	check 'on 127.0.0.1' get web 127.0.0.1:8081
	check 'only on 127.0.0.1' refused 10.77.0.1:8081 lan
	check 'UDP loopback' get web 127.0.0.1:8053/udp
	check 'UDP LAN' get web 10.77.0.1:8053/udp lan
	check 'range' get web 10.77.0.1:8092 lan
	# With implicit, a container's port is bound inside, where there is no such address.
	[ "$PORT_DRIVER" = implicit ] || check 'on a second address' second_address
	check 'UDP on 127.0.0.1' local_udp
	check 'outbound' docker exec web wget -qO- http://10.77.0.2:8000/
	if sees_clients; then
		check 'client seen' sees web 10.77.0.1:8080
		check 'client of UDP seen' sees web 10.77.0.1:8053/udp
		check 'loopback client seen' as_bridge web 127.0.0.1:8080
		check 'loopback UDP seen' as_bridge web 127.0.0.1:8053/udp
	fi
	if looks_through; then
		check 'way of the ports' ways
	fi
	check 'remove' removed
}

# looks_through reports whether the ports lead past a userland proxy.
looks_through() { [[ $PORT_DRIVER == [bg]* && $OPTIONS == *proxy ]]; }

# ways has the launcher say where the ports lead.
ways() {
	local list ports past
	list=$(user rootlessctl --socket "$STATE/api.sock" list-ports --wide --json)
	ports=$(wc -l <<<"$list")
	past=$(grep -c '"via":"container 172\.17\.0\.[0-9]*:[0-9]*"' <<<"$list")
	echo "$past of $ports ports lead to the container: $(grep -v '"via":"container' <<<"$list" | head -n 1)"
	[ "$past" -eq "$ports" ]
}

second_address() {
	serve second -p 10.77.0.9:8082:80 && get second 10.77.0.9:8082 lan && refused 10.77.0.1:8082 lan
	remove_after $? second
}

local_udp() {
	serve local -p 127.0.0.1:8054:80/udp && get local 127.0.0.1:8054/udp
	remove_after $? local
}

random_port() {
	local published
	published=$(docker port web 80/tcp | sed -n 's/^0.0.0.0:\([3-6][0-9]*\)$/\1/p' | head -n 1)
	get web "10.77.0.1:$published" lan
}

# remove_after CODE NAME... removes the containers, and returns the code.
remove_after() {
	remove "${@:2}"
	return "$1"
}

removed() { remove web && refused 127.0.0.1:8080 && refused 10.77.0.1:8092 lan; }

check_life() {
	check 'second network' second_network
	sees_clients && check 'two networks' two_networks
	check 'swap of a port' swap
	check 'restart' restart
	sees_clients && check 'ten restarts' restarts
	check 'exec' docker exec web true
	check 'build' build
	check 'kill -9 of dockerd' killed_dockerd
	check 'kill -9 of launcher' killed launcher
	check 'stop under load' stop_under_load
}

second_network() {
	docker network create second >/dev/null &&
		serve other --network second -p 8083:80 -p 8053:80/udp && get other 10.77.0.1:8083 lan &&
		{ ! sees_clients || { sees other 10.77.0.1:8083 && sees other 10.77.0.1:8053/udp; }; }
	remove_after $? other && docker network rm second >/dev/null
}

# two_networks has a container that is on both.
two_networks() {
	docker network create second >/dev/null &&
		serve both -p 8083:80 -p 8053:80/udp && docker network connect second both &&
		sees both 10.77.0.1:8083 && sees both 10.77.0.1:8053/udp
	remove_after $? both && docker network rm second >/dev/null
}

# swap gives each of two containers the other's port.
swap() {
	serve one -p 8080:80 && serve two -p 8084:80 &&
		get one 10.77.0.1:8080 lan && get two 10.77.0.1:8084 lan && remove one two &&
		serve one -p 8084:80 && serve two -p 8080:80 &&
		get one 10.77.0.1:8084 lan && get two 10.77.0.1:8080 lan
	remove_after $? one two
}

restart() {
	serve web --restart=always -p 8080:80 && get web 127.0.0.1:8080 &&
		docker restart -t 1 web >/dev/null && get web 10.77.0.1:8080 lan
}

# restarts asks all the time while the container restarts, ten times, and another one takes
# its address each time, if it can: 300 answers and more. Each is the container's that was
# asked, and none is missing but while nobody listened: then a request is refused, and
# does not wait in vain.
restarts() {
	local i asking rc=0
	: >"$WORK/asked" && : >"$WORK/down"
	serve rival -p 8084:80 || return
	ip netns exec lan "$WORK/image/bin/peer" watch 10.77.0.1:8080 >"$WORK/asked" & # not lan: its PID is needed
	asking=$!
	for i in {1..10}; do
		restarted && wait_for 60 "$((30 * i)) answers" answered $((30 * i)) || rc=1
	done
	kill "$asking"
	wait "$asking" 2>/dev/null
	all_answered || rc=1
	remove_after "$rc" rival
}

now() { date +%s.%N; }

# restarted restarts the container, and notes how long it was down.
restarted() {
	local since
	since=$(now)
	docker stop -t 1 web >/dev/null && docker restart -t 0 rival >/dev/null && docker start web >/dev/null &&
		get web 10.77.0.1:8080 lan >/dev/null && echo "$since $(now)" >>"$WORK/down"
}

answered() { [ "$(grep -c ' web ' "$WORK/asked")" -ge "$1" ]; }

# all_answered judges the answers: lines of "BEGIN [NAME CLIENT] END".
all_answered() {
	awk '
		function down() {
			for (i = 1; i <= n; i++)
				if ($1 <= until[i] && $NF >= since[i])
					return 1
			return 0
		}
		FNR == NR { since[++n] = $1; until[n] = $2; next }
		NF == 2 { if (down() && $2 - $1 < 4.9) refused++; else { lost++; which = $0 }; next }
		NF == 4 && $2 == "web" && ($3 ~ /^10\.77\.0\.2:/ || down()) { good++; next }
		NF > 2 { wrong++; which = $0 }
		END {
			printf "%d answered, %d refused while nobody listened, %d lost, %d wrong %s\n", good, refused, lost, wrong, which
			exit !(n == 10 && good >= 300 && lost + wrong == 0)
		}' "$WORK/down" "$WORK/asked"
}

# build uses the builder that is docker's default, with a network.
build() {
	local dir
	dir=$(mktemp -d)
	printf 'FROM peer\nRUN wget -qO /answer http://10.77.0.2:8000/\n' >"$dir/Dockerfile"
	docker build -q -t built "$dir" 2>&1 && docker run --rm built cat /answer
}

# killed WHO ends one of the two without a chance to clean up; a new start on the
# same state serves again.
killed() {
	case $1 in
	dockerd) pkill -KILL -x dockerd ;;
	launcher) kill -KILL "$(pgrep -o -x rootlesskit)" ;;
	esac
	wait_for 30 "the end of the launcher after kill -9 of $1" not pgrep -x rootlesskit || return
	launch && started && get web 127.0.0.1:8080 && get web 10.77.0.1:8080 lan
}

# killed_dockerd: dockerd 28 and newer, killed, leave a container now and then that no start
# begins again, whatever launcher they run on. That is no failure of this one where it
# happens on the original too.
killed_dockerd() {
	local try original=$WORK/original.log rc=1 how='unlike on the original'
	killed dockerd && return
	cannot_start "$LOG" || return 1
	for try in {1..40}; do
		: >"$original"
		LOG=$original LAUNCHER_DIR=$WORK/original PORT_DRIVER=$(originals_driver) killed_once && continue
		cannot_start "$original" || continue # it failed in another way
		rc=$skipped how='as on the original'
		break
	done
	killed_once prepare_only
	echo "no start of the container, $how at $try tries"
	return "$rc"
}

# originals_driver prints the port driver with which the original can run all checks on
# the network.
originals_driver() {
	case $PORT_DRIVER in
	bypass4netns | gvisor-tap-vsock) echo builtin ;;
	pesto) echo implicit ;;
	*) echo "$PORT_DRIVER" ;;
	esac
}

cannot_start() { grep -q 'could not delete stale containerd task object' "$1"; }

# killed_once begins afresh, and kills dockerd unless that is only to be prepared.
killed_once() {
	end_all
	afresh
	start && restart && { [ "${1:-}" = prepare_only ] || killed dockerd; }
}

# started starts the container that dockerd should have started. Where dockerd was
# killed, it does not always ("could not delete stale containerd task object"),
# whatever launcher it runs on.
started() { wait_for 20 'a start of the container' docker start web; }

stop_under_load() {
	local load rc=0
	lan ab -q -r -s 5 -c 16 -t 60 -n 10000000 http://10.77.0.1:8080/ >"$WORK/ab.log" 2>&1 &
	load=$!
	wait_for 10 'load' established || rc=1
	stop || rc=1
	kill "$load" 2>/dev/null || true
	return "$rc"
}

established() { [ "$(lan ss -Htn state established dst 10.77.0.1:8080 | wc -l)" -gt 4 ]; }
