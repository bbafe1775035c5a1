package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Listeners returns the addresses at which servers listen on a port, in the
// network namespace of the calling thread: call it inside Do. proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP; a UDP socket counts as a server unless
// it is connected. A socket for both families is listed as :: and 0.0.0.0; a
// socket that is bound to a device other than lo is left out.
//
// The list comes from the kernel's socket diagnostics, see sock_diag(7).
func Listeners(proto int, port uint16) ([]netip.Addr, error) {
	sockets, err := ListeningSockets(proto, port)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, len(sockets))
	for i, s := range sockets {
		addrs[i] = s.Addr
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// ListeningSocket is a server's socket. As in Listeners, a socket for both
// families appears twice. /proc/PID/fd names it by the inode.
type ListeningSocket struct {
	Addr  netip.Addr
	Inode uint64
}

// ListeningSockets is like Listeners, and returns the sockets.
func ListeningSockets(proto int, port uint16) ([]ListeningSocket, error) {
	var sockets []ListeningSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msgs, err := dump(diagRequest{family: family, proto: uint8(proto), port: port})
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			for _, addr := range parseDiag(m, port) {
				sockets = append(sockets, ListeningSocket{addr, diagInode(m)})
			}
		}
	}
	return sockets, nil
}

func dump(r diagRequest) ([][]byte, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(r)
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil {
		return nil, fmt.Errorf("listing the sockets at port %d: %w", r.port, err)
	}
	return msgs, nil
}

// Inodes returns the inodes, by which /proc/PID/fd names sockets, of the TCP
// sockets with a local port in the network namespace of the calling thread:
// those that listen or, with all, also those of connections, for which the
// kernel goes through all connections.
func Inodes(port uint16, all bool) (map[uint64]bool, error) {
	inodes := map[uint64]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msgs, err := dump(diagRequest{family: family, proto: unix.IPPROTO_TCP, port: port, all: all})
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if len(m) < diagMessageLen || binary.BigEndian.Uint16(m[4:]) != port {
				continue
			}
			if inode := diagInode(m); inode != 0 {
				inodes[inode] = true
			}
		}
	}
	return inodes, nil
}

// States of sockets, from the kernel's net/tcp_states.h. A UDP socket that is
// not connected is in stateClose.
const (
	stateClose  = 7
	stateListen = 10
)

// diagRequest is the kernel's struct inet_diag_req_v2.
type diagRequest struct {
	family, proto uint8
	port          uint16
	all           bool // in every state
}

const (
	diagRequestLen = 56
	diagMessageLen = 72 // struct inet_diag_msg
	diagSKV6Only   = 11 // INET_DIAG_SKV6ONLY
)

func (diagRequest) Len() int { return diagRequestLen }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestLen)
	b[0], b[1] = r.family, r.proto
	binary.NativeEndian.PutUint32(b[4:], r.states())
	binary.BigEndian.PutUint16(b[8:], r.port)
	return b
}

// states returns the bit of the state of a server's socket, or the bits of all
// states. For TCP states other than stateListen, the kernel goes through all
// connections.
func (r diagRequest) states() uint32 {
	switch {
	case r.all:
		return ^uint32(0)
	case r.proto == unix.IPPROTO_UDP:
		return 1 << stateClose
	}
	return 1 << stateListen
}

// parseDiag returns the addresses of one struct inet_diag_msg: none if the
// message is malformed or about another port.
func parseDiag(b []byte, port uint16) []netip.Addr {
	if len(b) < diagMessageLen || binary.BigEndian.Uint16(b[4:]) != port {
		return nil
	}
	const lo = 1 // the index of lo, in every namespace
	if device := binary.NativeEndian.Uint32(b[40:]); device != 0 && device != lo {
		return nil
	}
	switch b[0] {
	case unix.AF_INET:
		return []netip.Addr{netip.AddrFrom4([4]byte(b[8:12]))}
	case unix.AF_INET6:
		addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if addr == netip.IPv6Unspecified() && !v6Only(b[diagMessageLen:]) {
			return []netip.Addr{addr, netip.IPv4Unspecified()}
		}
		return []netip.Addr{addr}
	}
	return nil
}

// diagInode returns the inode of a message that is long enough.
func diagInode(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b[68:])) }

// v6Only looks for IPV6_V6ONLY among the attributes of a message.
func v6Only(attrs []byte) bool {
	for len(attrs) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.SizeofNlAttr || size > len(attrs) {
			return false
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == diagSKV6Only && size > unix.SizeofNlAttr {
			return attrs[unix.SizeofNlAttr] != 0
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return false
}
