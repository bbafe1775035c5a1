// Package sourceip lets servers in the child's network namespace see the real
// address of the clients of published ports.
//
// # Theory of operation
//
// The relay binds its socket inside the namespace to the client's address and
// port (IP_TRANSPARENT, see ip(7)) and connects it to an address of the
// namespace. Such a packet leaves and arrives on lo, whatever its source. The
// replies are the problem: they are for an outside address, so routing sends
// them out of the namespace. Two layers bring them back to lo:
//
//   - The rules (rules.go) are routing rules: packets from a loopback address
//     to one that is not local are delivered on lo. They need no packet filter
//     and cost nothing per packet. They suffice for every server that is reached at
//     a loopback address and answers from it: all of TCP, and UDP servers that
//     are bound to the loopback address.
//   - The marks (nft.go, iptables.go) do the rest: UDP servers on the wildcard
//     address (they answer from the address that the route to the client
//     prefers, so datagrams must be sent there), servers that are bound to a
//     single address, and servers behind NAT, as container engines make them.
//     Connections that start on lo are marked in conntrack; a reply that is
//     about to leave, or comes from a bridge, takes the mark of its connection,
//     and a rule sends marked packets to lo. conntrack is made to remember UDP
//     clients as long as the relay does (nftpatience.go).
//
// Conntrack slows down all of the namespace's traffic on lo (by about a quarter of
// the CPU time of a small request, and a third of a connection's). So the marks are
// only made when a client arrives that needs them, or if there is NAT, or if
// conntrack is already in use. The rules are made when the first remote client
// arrives. A firewall inside may drop the replies before their mark has led them to
// lo, so the marks are tried (trial.go). No sysctl is changed: packets on lo keep the
// route with which they were sent, so rp_filter and martian checks do not apply to
// them, and NAT restores the source of a bridge's reply only after its route was
// looked up.
//
// The address to send to depends on where the server listens. The child decides it
// (plan.go), since it knows the listening sockets, addresses and routes. The parent
// asks at most once a second per port, more often only while no server is found for
// clients that send, and decides for each client in [Port.Route] without blocking.
//
// If no server listens and there is NAT, there are two ways to try, see behindnat.go.
//
// If a client's own address cannot be shown, the source is the child's own
// address, never a loopback address, which servers trust (CVE-2021-20199). This
// applies to
//
//   - clients with an address in a network inside the namespace (a bridge's, or
//     the uplink's): a server there would send its answer to the neighbour with
//     that address, or trust it;
//   - link-local IPv6 clients, whose address means nothing without a zone;
//   - UDP servers on the wildcard address of a family without a default route, and,
//     without such a route, all servers at an address that is not on lo: the kernel
//     refuses to answer before any rule sees the packet;
//   - everything that needs marks, if they do not work, or the kernel has neither
//     nf_tables nor iptables. A rule by source port (ip rule ... sport) would not help:
//     it would also apply to the server's other peers and its own requests.
//
// # Names and numbers
//
// These appear in listings of the namespace and must not collide with others:
//
//   - packet mark and conntrack mark 0x10000000, only this bit. Others: CNI
//     0x2000, kube-proxy 0x4000 and 0x8000, Tailscale 0xff0000, Calico and
//     Cilium bits from 16 up (in their own namespaces), wg-quick 0xca6c.
//   - routing table 29291 and the group of that number for the uplink; rules
//     of priority 290 to 292. Others: Cilium 9 to 111, Tailscale 5210 to 5270
//     and table 52, wg-quick table 51820.
//   - nft tables "ip rootlesskit" and "ip6 rootlesskit", priority mangle + 1;
//     iptables chains ROOTLESSKIT-OUTPUT and ROOTLESSKIT-PREROUTING of the
//     table mangle.
package sourceip
