# shellcheck shell=bash
# The two hosts, the LAN between them, and the nodes.

up() {
	step "bringing up two nodes: --net=$NET --port-driver=$PORT --mtu=$MTU, kube-proxy $PROXYMODE, child address: ${CHILD:-none}"
	chmod 0666 /dev/net/tun
	hosts
	[ -e "$RUN/keys/done" ] || ./keys.sh "$RUN/keys"
	make_image
	node 1
	node 2
}

hosts() {
	local s n
	for s in lan h1 h2; do [ -e "/run/netns/k8s$s" ] || ip netns add "k8s$s"; done
	lan sh -c 'ip link set lo up; ip link show br0 >/dev/null 2>&1 ||
		{ ip link add br0 type bridge; ip addr add 10.99.0.100/24 dev br0; ip link set br0 up; }'
	for n in 1 2; do
		if ! ip -n k8slan link show "p$n" >/dev/null 2>&1; then
			ip -n k8slan link add "p$n" type veth peer name eth0 netns "k8sh$n"
			ip -n k8slan link set "p$n" master br0 up
			ip -n "k8sh$n" link set lo up
			ip -n "k8sh$n" addr add "$(host "$n")/24" dev eth0
			ip -n "k8sh$n" link set eth0 up
			ip -n "k8sh$n" route add default via 10.99.0.100
			nsenter --net="/run/netns/k8sh$n" sh -c 'echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range'
		fi
		id "$(user_of "$n")" >/dev/null 2>&1 || useradd -M -s /bin/sh -d "$RUN/node$n" "$(user_of "$n")"
		install -d -o "$(user_of "$n")" -g "$(user_of "$n")" -m 0755 "$RUN/node$n" "$RUN/node$n/run"
	done
}

# node N starts the node of host N.
node() {
	local n=$1 own child port args=()
	own=$(host "$n")
	child=${CHILD:+$own:}
	[ "$n" = 2 ] || args+=(-p "$own:6443:${child}6443/tcp")
	for port in 10250/tcp 8472/udp 30080/tcp 30080/udp 30081/tcp 30082/tcp 30083/tcp; do
		args+=(-p "$own:${port%/*}:$child$port")
	done
	as_host "$n" "$BIN/rootlesskit" --state-dir="$RUN/node$n/state" --net="$NET" --mtu="$MTU" --port-driver="$PORT" \
		--disable-host-loopback --copy-up=/etc --copy-up=/run --copy-up=/var/lib --copy-up=/var/log --propagation=rslave \
		--pidns --cgroupns --utsns --ipcns "${args[@]}" \
		"$BIN/node.sh" "$n" >>"$RUN/node$n/rootlesskit.log" 2>&1 </dev/null &
	echo $! >"$RUN/node$n/pid"
}

# end_of N waits until nothing of a node is left.
end_of() {
	local i
	for i in $(seq 300); do
		[ -n "$(pgrep -u "$(user_of "$1")")" ] || return 0
		sleep 0.1
	done
	return 1
}

down() {
	local n s
	for n in 1 2; do [ ! -s "$RUN/node$n/pid" ] || kill "$(cat "$RUN/node$n/pid")" 2>/dev/null || true; done
	for n in 1 2; do
		end_of "$n" || { pgrep -au "$(user_of "$n")" >&2; }
		userdel "$(user_of "$n")" 2>/dev/null || true
	done
	for s in h1 h2 lan; do ip netns del "k8s$s" 2>/dev/null || true; done
	[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$RUN"
	step 'down'
}
