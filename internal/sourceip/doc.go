// Package sourceip lets servers in the child's network namespace see the real
// address of the clients of published ports.
//
// # Theory of operation
//
// The relay binds its socket inside the namespace to the client's address and
// port (IP_TRANSPARENT, see ip(7)) and connects it to an address of the
// namespace. Such a packet leaves and arrives on lo, whatever its source. The
// replies are the problem: they are for an address of the outside, so routing
// sends them out of the namespace. Two layers bring them back to lo:
//
//   - The rules (rules.go) are routing rules: packets from a loopback address
//     to one that is not local are delivered on lo. They need no packet filter
//     and cost nothing per packet. They suffice for every server that is reached at
//     a loopback address and answers from it: all of TCP, and UDP servers that
//     are bound to the loopback address.
//   - The marks (nft.go, iptables.go) do the rest: UDP servers on the wildcard
//     address (they answer from the address that the route to the client
//     prefers, so they have to be asked there), servers bound to one address
//     alone, and servers behind a NAT of their own, as container engines make
//     them. Connections that start on lo are marked in conntrack; a reply that
//     is about to leave, or comes from a bridge, takes the mark of its
//     connection, and a rule sends marked packets to lo. conntrack is made to
//     remember UDP clients as long as the relay does (nftpatience.go).
//
// Conntrack slows down all of the namespace's traffic on lo (by about a quarter
// of the CPU time of a small request, a third of a connection's), so the marks are
// made no sooner than a client comes that needs them, or there is NAT, or conntrack
// is found at work already; the rules, when the first remote client comes. A firewall
// inside may drop the replies before their mark has led them to lo, so the marks are
// tried (trial.go). No sysctl is touched: packets on lo keep the route they were
// sent by, so that rp_filter and martian checks do not see them, and NAT turns the
// source of a bridge's reply back only after its route was looked up.
//
// Which address to send to follows from where the server listens, and is
// decided in the child (plan.go) with all it knows: listening sockets,
// addresses, routes. The parent asks once a second and port at most, more often only
// while nobody is found for those who send, and decides per client in [Port.Route]
// without blocking.
//
// Where nobody listens and there is NAT, there are two ways to try, see behindnat.go.
//
// Where a client's own address cannot be shown, the child's own address is its
// source, never a loopback address: servers trust those (CVE-2021-20199). That
// is so for
//
//   - clients with an address of a network inside the namespace (a bridge's, or
//     the uplink's): a server there would answer to its neighbour of that address,
//     or trust it;
//   - link-local IPv6 clients, whose address means nothing without a zone;
//   - UDP servers on the wildcard address of a family without a default route, and
//     all servers that are asked at an address beyond lo: the kernel refuses to answer
//     before any rule sees the packet;
//   - all that needs marks, where they do not carry, or the kernel has neither
//     nf_tables nor iptables. A rule by source port (ip rule ... sport) is no way out: it
//     would take the server's other peers and its own requests as well.
//
// # Names and numbers
//
// They show in listings of the namespace and must not collide with others':
//
//   - packet mark and conntrack mark 0x10000000, that bit alone. Others: CNI
//     0x2000, kube-proxy 0x4000 and 0x8000, Tailscale 0xff0000, Calico and
//     Cilium bits from 16 up (in their own namespaces), wg-quick 0xca6c.
//   - routing table 29291 and the group of that number for the uplink; rules
//     of priority 290 to 292. Others: Cilium 9 to 111, Tailscale 5210 to 5270
//     and table 52, wg-quick table 51820.
//   - nft tables "ip rootlesskit" and "ip6 rootlesskit", priority mangle + 1;
//     iptables chains ROOTLESSKIT-OUTPUT and ROOTLESSKIT-PREROUTING of the
//     table mangle.
package sourceip
