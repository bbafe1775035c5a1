# A network namespace with all kinds of servers: peers.py on the addresses of
# the namespace, one in a container behind a bridge and NAT, as container engines
# make it, and a proxy to that one.
#
# $ADDRESSES: make addresses and default routes, where no network driver does
# $PEERS: the path of peers.py
# $AWAIT_LINKS: the shell function await_links
set -e
PATH=$PATH:/usr/sbin:/sbin
eval "$AWAIT_LINKS"
if [ "$ADDRESSES" ]; then
	ip link add tap0 type veth peer name tap1
	ip link set tap0 up
	ip link set tap1 up
	ip addr add 10.0.2.100/24 dev tap0
	ip addr add fd00::100/64 dev tap0 nodad
	ip route add default via 10.0.2.2
	ip -6 route add default via fd00::2
fi
own4=$(ip -o -4 addr show dev tap0 | sed 's/.* inet \([^/]*\).*/\1/')
own6=$(ip -o -6 addr show dev tap0 scope global | sed 's/.* inet6 \([^/]*\).*/\1/')

unshare --net sh -ec '
	echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
	until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
	ip link set lo up
	ip addr add 172.17.0.2/16 dev eth0
	ip addr add fd17::2/64 dev eth0 nodad
	ip link set eth0 up
	ip route add default via 172.17.0.1
	ip -6 route add default via fd17::1
	eval "$AWAIT_LINKS"
	await_links eth0
	exec python3 "$PEERS" tcp/::/80 udp/0.0.0.0/80 udp/fd17::2/80
' &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done

echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad # no wait for addresses
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip addr add fd17::1/64 dev docker0 nodad
ip link set docker0 up
ip link add veth0 type veth peer name eth0 netns $!
ip link set veth0 master docker0 up
nft -f - <<RULES
table ip nat {
	chain output {
		type nat hook output priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to 172.17.0.2:80
	}
	chain prerouting {
		type nat hook prerouting priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to 172.17.0.2:80
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 172.17.0.0/16 oifname != docker0 masquerade
	}
}
table ip6 nat {
	chain output {
		type nat hook output priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to [fd17::2]:80
	}
	chain prerouting {
		type nat hook prerouting priority -100
		meta l4proto {tcp, udp} th dport 8080 fib daddr type local dnat to [fd17::2]:80
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip6 saddr fd17::/64 oifname != docker0 masquerade
	}
}
RULES
await_links veth0 docker0
PROXIED=172.17.0.2 exec python3 "$PEERS" \
	tcp/0.0.0.0/1001 udp/0.0.0.0/1001 \
	tcp/::/1002 udp/::/1002 \
	tcp/127.0.0.1/1003 udp/127.0.0.1/1003 tcp/::1/1003 udp/::1/1003 \
	tcp/$own4/1004 udp/$own4/1004 tcp/$own6/1004 udp/$own6/1004 \
	udp-connected/0.0.0.0/1005 udp-connected/::/1006 \
	tcp-proxy/0.0.0.0/1008 udp-proxy/0.0.0.0/1008 \
	tcp-held/127.0.0.1/1010 udp-held/127.0.0.1/1010
