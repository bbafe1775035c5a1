# Two containers on a bridge, with peers.py at port 80, as an engine with userland
# proxies makes them: what comes to their addresses from elsewhere is dropped, and no
# rule leads to them.
#
# $PEERS: the path of peers.py
# $SERVE: shell code that a container runs before it serves
# $PROXIES: shell code that starts proxies
# $AWAIT_LINKS: the shell function await_links
set -e
PATH=$PATH:/usr/sbin:/sbin
eval "$AWAIT_LINKS"
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad # no wait for addresses
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip addr add fd17::1/64 dev docker0 nodad
ip link set docker0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<RULES
table ip engine {
	chain prerouting {
		type filter hook prerouting priority raw
		ip daddr 172.17.0.0/24 iifname != { docker0, lo } drop
	}
	chain forward {
		type filter hook forward priority filter
		policy drop
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 172.17.0.0/16 oifname != docker0 masquerade
	}
}
RULES
for n in 2 3; do
	PEER_NAME="container $n: " unshare --net sh -ec "
		echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
		until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
		ip link set lo up
		ip addr add 172.17.0.$n/16 dev eth0
		ip addr add fd17::$n/64 dev eth0 nodad
		ip link set eth0 up
		ip route add default via 172.17.0.1
		ip -6 route add default via fd17::1
		eval \"\$AWAIT_LINKS\"
		await_links eth0
		$SERVE
		exec python3 \"\$PEERS\" tcp/::/80 udp/0.0.0.0/80 udp/fd17::$n/80
	" &
	until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
	ip link add veth$n type veth peer name eth0 netns $!
	ip link set veth$n master docker0 up
	await_links veth$n docker0
done
eval "$PROXIES"
wait
