// Package gvisor has the network and port driver that need no helper program: a
// TCP/IP stack, gVisor's netstack, runs in the parent and serves the child's
// network namespace through a TAP device.
//
// # The way of the data
//
// The child opens the TAP device inside its namespace and hands its descriptor
// over. Frames of the namespace are sorted where they are read:
//
//	  namespace                        parent                               host
//	+-----------+   +------+  TCP   +-------+   +-------+   bytes   +-------------+
//	|           |   |      |------->| stack |-->| relay |<--------->| TCP sockets |
//	|           |   |      |<-------|       |<--|       |           |             |
//	| programs, |   | link |        +-------+   +-------+           | outbound,   |
//	| kernel    |<->|      |                                        | published   |
//	|           |   |      |  UDP, pings  +----------+  datagrams   |             |
//	|           |   |      |------------->| datagram |<------------>| UDP, ICMP   |
//	|           |   |      |<-------------| dns      |<------------>| sockets     |
//	+-----------+   +------+              +----------+  queries     +-------------+
//	            TAP            policy: what may be reached, and who is seen as whom
//
// TCP goes through the stack. A connection to the outside ends at the stack, and a
// second one, which the host makes before the first is accepted, carries its bytes
// further. A published port is the same with the roles exchanged: the stack connects
// to the namespace with the client's address.
//
// UDP and pings are carried packet by packet, without the stack. The gateway's
// address represents the host, and answers DNS queries. The stack handles ARP,
// neighbour discovery, fragments, and everything else.
//
// # The rooms
//
// The first word of a file's name says which room it is in; the first file of a
// room, or the one that the table names, explains the room.
//
//	gvisor     the drivers' registration, one network from its start to its end, upkeep
//	link       frames from and to the TAP device: offloads (vnethdr), packets that need
//	           no stack (frames), ICMP errors (reject), acknowledgements held back (acks)
//	stack      netstack with its options; who has which address (plan); the share of the
//	           buffers that each connection has (buffers)
//	relay      bytes between a socket and the stack (relay, payload), all relays of a port
//	           (group), who is let in when (admission)
//	outbound   the namespace's way out: TCP (tcp, attempts, dial), UDP (udp), ping
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
