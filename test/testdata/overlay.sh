# A node of an overlay: a pod's namespace on a bridge, which a tunnel connects to the
# bridge of another host.
#
# overlay.sh TUNNEL OTHER-HOST PORT [NUMBER MTU-OF-PODS TOOL]
set -e
PATH=$PATH:/usr/sbin:/sbin
tunnel=$1 other=$2 port=$3 n=$4 mtu=$5 tool=$6
case $tunnel in
vxlan6-zerocsum)
	ip link add tunnel type vxlan id 1 remote $other dstport $port udp6zerocsumrx
	;;
vxlan* | geneve)
	ip link add tunnel type ${tunnel%6} id 1 remote $other dstport $port
	;;
few-ports)
	ip link add tunnel type vxlan id 1 remote $other dstport $port srcport 50000 50008
	;;
gre)
	ip fou add port $port ipproto 47
	ip link add tunnel type gretap remote $other encap fou encap-sport auto encap-dport $port
	;;
esac
[ "$tool" ] || exit 0 # it was only to see whether the kernel has the tunnel

unshare --net sh -ec '
	echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
	until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
	ip link set lo up
	ip link set eth0 mtu $2
	ip addr add 10.244.0.$1/24 dev eth0
	ip addr add fd00:244::$1/64 dev eth0 nodad
	ip link set eth0 up
	eval "$AWAIT_LINKS"
	await_links eth0
	exec "$3" echo :7
' - $n $mtu "$tool" &
pod=$!
until [ "$(readlink /proc/$pod/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad # no wait for addresses
ip link add bridge type bridge
ip link add veth0 type veth peer name eth0 netns $pod
for link in tunnel veth0; do ip link set $link mtu $mtu master bridge up; done
ip link set bridge up
eval "$AWAIT_LINKS"
await_links veth0 bridge
echo "pod: $pod"
wait $pod
