# shellcheck shell=bash
# Checks the cluster that is up.

fails=0 checks=0

# expect NAME PATTERN COMMAND...: what the command prints matches, within some tries.
expect() {
	local name=$1 want=$2 out
	shift 2
	checks=$((checks + 1))
	for _ in 1 2 3 4 5; do
		out=$("$@" 2>&1) || true
		if grep -qE -- "$want" <<<"$out"; then
			step "ok    $name: $(grep -E -- "$want" <<<"$out" | tail -1 | cut -c1-80)"
			return
		fi
		sleep 1
	done
	fails=$((fails + 1))
	step "FAIL  $name: $(tail -2 <<<"$out" | tr '\n' ' ' | cut -c1-300)"
}

# until_true SECONDS COMMAND...
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.3
	done
}

ready() { [ "$(LIMIT=5 k get nodes --no-headers 2>/dev/null | grep -cw Ready)" = 2 ]; }

# find_pods sets the names and addresses of the two pods, one on each node.
find_pods() {
	local all
	all=$(k get pods -l app=web --field-selector=status.phase=Running \
		-o 'jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {.status.podIP}{"\n"}{end}' 2>/dev/null | sort)
	read -r -d '' n1 p1 a1 n2 p2 a2 rest <<<"$all" || true
	[ "$n1" = node1 ] && [ "$n2" = node2 ] && [ -n "$a2" ] && [ -z "$rest" ]
}

wait_pods() {
	until_true 120 find_pods || step "still waiting for a pod on each node: $(k get pods -o wide 2>&1 | tr '\n' ';')"
	step "      node1: $p1 $a1, node2: $p2 $a2"
}

in_pod() { k exec "$1" -- "${@:2}"; }
send() { lan timeout 10 "$BIN/pod" send "$@"; }

# eight asks as often, so that a service's choice is seen: both pods have a chance.
eight() { for _ in 1 2 3 4 5 6 7 8; do "$@"; done; }

check() {
	until_true 180 ready || true
	expect 'both nodes are ready' 'node2 +Ready' k get nodes
	sed "s#CACHE#$CACHE#" dns.yaml | k apply -f - >/dev/null || true
	k apply -f work.yaml >/dev/null || true
	wait_pods
	check_overlay
	check_services
	for n in 1 2; do check_published "$n"; done
	check_outbound
	check_api
	check_flows
	for n in 2 1; do check_kill "$n"; done
	step "$fails of $checks failed"
	[ "$fails" = 0 ]
}

check_overlay() {
	local full=$((MTU - 50 - 28))
	expect 'ping 1-2, full MTU' ' 0% packet loss' in_pod "$p1" ping -c 3 -W 2 -s $full "$a2"
	expect 'ping 2-1, full MTU' ' 0% packet loss' in_pod "$p2" ping -c 3 -W 2 -s $full "$a1"
	expect 'TCP 1-2' "I am $p2, you are $a1" in_pod "$p1" /pod send tcp "$a2:8080"
	expect 'TCP 2-1' "I am $p1, you are $a2" in_pod "$p2" /pod send tcp "$a1:8080"
	expect 'UDP 2-1' "I am $p1, you are $a2" in_pod "$p2" /pod send udp "$a1:8080"
	LIMIT=300 expect 'TCP 1-2, 50 MB there and back' ': enough' in_pod "$p1" /pod send tcp "$a2:8081" 50000000
	expect 'UDP 1-2, 500 of full MTU' ': enough' in_pod "$p1" /pod send udp "$a2:8081" $((MTU - 78)) 500
	expect 'UDP 2-1, 200 in fragments' ': enough' in_pod "$p2" /pod send udp "$a1:8081" 60000 200
}

check_services() {
	local ip p to proto
	ip=$(k get svc web -o 'jsonpath={.spec.clusterIP}') || true
	for p in "$p1" "$p2"; do
		for to in "$p1" "$p2"; do
			for proto in tcp udp; do
				expect "ClusterIP $proto, from $p" "I am $to" in_pod "$p" sh -c "for i in 1 2 3 4 5 6 7 8; do /pod send $proto $ip:80; done"
			done
		done
	done
	expect 'DNS' "Address.*: $ip" in_pod "$p2" nslookup web.default.svc.cluster.local
	expect 'a service by its name' 'I am web-' in_pod "$p1" /pod send tcp web.default.svc.cluster.local:80
	# shellcheck disable=SC2016
	expect 'the API from a pod' 'HTTPS server' in_pod "$p2" sh -c '/pod send tcp $KUBERNETES_SERVICE_HOST:443'
}

# check_published N checks what a host's LAN sees of its node.
check_published() {
	local n=$1 p to own
	own=$(host "$n")
	p=$p1
	[ "$n" = 1 ] || p=$p2
	expect "NodePort of host $n, Local, TCP" "I am $p, you are 10.99.0.100:" send tcp "$own:30080"
	expect "NodePort of host $n, Local, UDP" "I am $p, you are 10.99.0.100:" send udp "$own:30080"
	for to in "$p1" "$p2"; do
		expect "NodePort of host $n, Cluster" "I am $to" eight send tcp "$own:30081"
	done
	expect "hostPort of host $n" "I am $p, you are " send tcp "$own:30082"
	expect "host $n, published later" '^[0-9]+$' ctl "$n" add-ports "$own:31080:${CHILD:+$own:}30080/tcp"
	expect "NodePort of host $n, published later" "I am $p, you are 10.99.0.100:" send tcp "$own:31080"
	expect "host $n, no longer published" '^[0-9]+$' ctl "$n" remove-ports "$(ctl "$n" list-ports | awk '$4 == 31080 { print $1 }')"
}

# ctl N ARGUMENT... asks a node's launcher.
ctl() { (as_host "$1" "$BIN/rootlessctl" --socket "$RUN/node$1/state/api.sock" "${@:2}"); }

check_outbound() {
	local p server
	nsenter --net=/run/netns/k8slan "$BIN/pod" serve 9000 >/dev/null 2>&1 &
	server=$!
	for p in "$p1" "$p2"; do
		expect "out by TCP, $p" 'you are 10.99.0.[12]:' in_pod "$p" /pod send tcp 10.99.0.100:9000
		expect "out by UDP, $p" 'you are 10.99.0.[12]:' in_pod "$p" /pod send udp 10.99.0.100:9000
		expect "out by ping, $p" ' 0% packet loss' in_pod "$p" ping -c 2 -W 2 10.99.0.100
	done
	kill $server
}

check_api() {
	local forward
	expect 'logs of node 2' 'request from' k logs "$p2"
	nsenter --net=/run/netns/k8slan "$BIN/kubectl" port-forward "pod/$p2" 18080:8080 >/dev/null 2>&1 &
	forward=$!
	expect 'port-forward to node 2' "I am $p2" send tcp 127.0.0.1:18080
	kill $forward
}

check_flows() {
	local n pid
	LIMIT=120 expect '1,000 flows over the overlay' '^failed 0$' in_pod "$p1" sh -c \
		"i=0; f=0; while [ \$i -lt 1000 ]; do /pod send tcp $a2:8080 >/dev/null || f=\$((f+1)); i=\$((i+1)); done; echo failed \$f"
	for n in 1 2; do
		pid=$(cat "$RUN/node$n/pid")
		step "      node $n: the launcher has $(awk '/VmRSS/{print int($2/1024)}' "/proc/$pid/status") MiB," \
			"$(find "/proc/$pid/fd" -type l | wc -l) descriptors; all of the node" \
			"$(ps -o rss= -u "$(user_of "$n")" | awk '{s+=$1} END{print int(s/1024)}') MiB"
	done
}

# renew has node 2 of a cluster that check has left up leave it and join again.
renew() {
	find_pods || true
	check_renew 2
	step "$fails of $checks failed"
	[ "$fails" = 0 ]
}

# check_renew N takes a node out of the cluster, ends its launcher, and has another one
# join in its place, as for an upgrade.
check_renew() {
	local n=$1
	LIMIT=120 expect "drain of node $n" "node/node$n drained" k drain "node$n" --ignore-daemonsets --delete-emptydir-data --force --timeout=100s
	expect "node $n is deleted" "\"node$n\" deleted|not found" k delete node "node$n"
	kill "$(cat "$RUN/node$n/pid")"
	end_of "$n" || true
	expect "SIGTERM to node $n's launcher leaves nothing" '^0$' sh -c "pgrep -u $(user_of "$n") | wc -l"
	node "$n"
	until_true 180 ready || true
	k uncordon "node$n" >/dev/null 2>&1 || true
	expect 'both nodes are ready again' "node$n +Ready" k get nodes
	wait_pods
	check_published "$n"
}

# check_kill N kills a node's launcher, starts it again, and waits until all is as it was.
check_kill() {
	local n=$1 since
	kill -9 "$(cat "$RUN/node$n/pid")"
	since=$EPOCHREALTIME
	end_of "$n" || true
	expect "kill -9 of node $n's launcher leaves nothing" '^0$' sh -c "pgrep -u $(user_of "$n") | wc -l"
	node "$n"
	since=$EPOCHREALTIME
	until_true 180 serves_again "$n" || true
	step "      node $n serves again after $(elapsed "$since") s"
	until_true 60 ready || true
	wait_pods
	check_overlay
	check_published "$n"
}

serves_again() { send tcp "$(host "$1"):30080" >/dev/null 2>&1; }
