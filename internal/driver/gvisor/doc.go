// Package gvisor has the network and port driver that need no helper program: the
// parent serves the child's network namespace through a TAP device. It has the name of
// upstream's embedded network, by which clients ask for it.
//
// # The way of the data
//
// The child opens the TAP device inside its namespace and hands its descriptor
// over. Packets of the namespace are sorted where they are read:
//
//	  namespace                        parent                               host
//	+-----------+   +------+  TCP   +-----------+     bytes      +-------------+
//	|           |   |      |<------>| translate |<-------------->| TCP sockets |
//	|           |   |      |        +-----------+                |             |
//	| programs, |   | loop,|  UDP,  +-----------+  datagrams     | UDP, ICMP   |
//	| kernel    |<->| link |<------>| datagram, |<-------------->| sockets     |
//	|           |   |      |  pings | dns       |  queries       |             |
//	|           |   |      |        +-----------+                +-------------+
//	|           |   |      |  else  +-----------+
//	|           |   |      |<------>| stack     |
//	+-----------+   +------+        +-----------+
//	            TAP            policy: what may be reached, and who is seen as whom
//
// A TCP connection is a socket of the host, whose bytes the package translate puts into
// segments, and the reverse. One to the outside is accepted inside when the host has
// connected. A published port is the same with the roles exchanged: the namespace is
// connected to with the client's address.
//
// UDP and pings are carried packet by packet. The gateway's address represents the
// host, and answers DNS queries. gVisor's netstack handles ARP, neighbour discovery,
// fragments, and everything else.
//
// # The rooms
//
// The first word of a file's name says which room it is in; the first file of a
// room, or the one that the table names, explains the room.
//
//	gvisor     the drivers' registration, one network from its start to its end, upkeep
//	loop       the goroutine that waits for TCP's sockets, and the turns of all who have events
//	link       frames from and to the TAP device: offloads (vnethdr), packets that need
//	           no stack (frames), ICMP errors (reject)
//	stack      netstack with its options; who has which address (plan)
//	outbound   the namespace's way out: TCP (tcp, socket), UDP (udp), ping
//	published  the host's way in: the port driver, TCP, UDP, and the address that the
//	           namespace sees of a client (clients)
//	datagram   who gets a datagram of the namespace; flows and when they end (flows);
//	           sockets of the host, and what they tell of errors (socket, errors)
//	dns        queries to the host's name servers, which are followed (resolvers)
//	policy     what of the host the namespace may reach, and what it sees of peers
//	sys        descriptors that several goroutines use (sharedfd)
//
// # Bounds
//
// Everything is bounded: connections, flows, queries, and buffered data. What exceeds
// a bound is lost, like a packet on a busy network, or waits in a kernel queue, as
// the peer can notice.
package gvisor
