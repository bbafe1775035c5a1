package nstest

// NoAddressDetection is a shell command after which IPv6 addresses of new links are
// there at once, without the one to two seconds of duplicate address detection
// (RFC 4862, 5.4).
const NoAddressDetection = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad\n"

// AwaitLinks defines a function of the shell that waits until links are up and have
// their addresses. The kernel brings a link up, and makes a new IPv6 address one of its
// own, in workers, for which a busy machine may take seconds. Until then it drops what
// it is given, ARP and neighbour discovery included: the first packet to somebody
// behind the link comes late, and a datagram may be lost. It asks for a neighbour from
// the link-local address where the packet's own is not the link's, and not at all
// before that address has been found to be nobody else's: after three seconds the
// neighbour is "no route to host".
const AwaitLinks = AwaitAddresses + `
await_links() {
	for link; do
		await "the link $link does not come up" link_is_up "$link" || return
		await_addresses "$link" || return
	done
}

link_is_up() { ip link show "$1" | grep -q 'state UP'; }
`

// AwaitAddresses is AwaitLinks for the IPv6 addresses of a link alone.
const AwaitAddresses = `
await() {
	complaint=$1 tries=0
	shift
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 6000 ] || { echo "$complaint" >&2; return 1; }
		sleep 0.01
	done
}

await_addresses() { await "the link $1 has no addresses of its own" addresses_are_own "$1"; }

addresses_are_own() {
	[ -z "$(ip -6 addr show dev "$1" tentative)" ] || return
	for address in $(ip -o -6 addr show dev "$1" scope global | sed 's/.* inet6 \([^/]*\).*/\1/'); do
		ip -6 route show table local | grep -q "^local $address " || return
	done
}
`
