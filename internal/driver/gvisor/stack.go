package gvisor

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// nicID is the stack's only interface.
const nicID tcpip.NICID = 1

// newStack makes the stack with its interface on the link.
func newStack(l *link, p *plan) (*stack.Stack, error) {
	silenceLibrary()
	opts := stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	}
	if p.hasIPv6() {
		// The zero options leave out duplicate address detection: no one else assigns
		// addresses on this wire.
		opts.NetworkProtocols = append(opts.NetworkProtocols, ipv6.NewProtocolWithOptions(ipv6.Options{}))
		opts.TransportProtocols = append(opts.TransportProtocols, icmp.NewProtocol6)
	}
	s := stack.New(opts)
	if err := configureStack(s, l, p); err != nil {
		stopStack(s)
		return nil, err
	}
	return s, nil
}

func configureStack(s *stack.Stack, l *link, p *plan) error {
	if err := s.CreateNIC(nicID, l); err != nil {
		return fmt.Errorf("the stack's interface: %s", err)
	}
	// Promiscuous, to receive for any address; spoofing, to send from any address.
	if err := s.SetPromiscuousMode(nicID, true); err != nil {
		return fmt.Errorf("promiscuous mode: %s", err)
	}
	if err := s.SetSpoofing(nicID, true); err != nil {
		return fmt.Errorf("spoofing: %s", err)
	}
	for _, own := range p.own() {
		if err := addAddress(s, own); err != nil {
			return err
		}
	}
	routes := []tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}}
	if p.hasIPv6() {
		routes = append(routes, tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	}
	s.SetRouteTable(routes)
	return nil
}

func addAddress(s *stack.Stack, a netip.Prefix) error {
	err := s.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          networkProtocol(a.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: stackAddr(a.Addr()), PrefixLen: a.Bits()},
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("the stack's address %s: %s", a, err)
	}
	return nil
}

// stopStack ends all connections of the stack, and its goroutines.
//
// It does not use stack.Destroy, which would wait for the end of endpoints that
// may be made in the meantime.
func stopStack(s *stack.Stack) {
	s.Close()
	s.TransportProtocolInstance(tcp.ProtocolNumber).Wait()
}

func networkProtocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is6() {
		return ipv6.ProtocolNumber
	}
	return ipv4.ProtocolNumber
}

func stackAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// netAddr is the inverse of stackAddr.
func netAddr(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// remoteOf and localOf are the two ends of a flow as the stack sees it: the
// remote end is the namespace's.
func remoteOf(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netAddr(id.RemoteAddress), id.RemotePort)
}

func localOf(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netAddr(id.LocalAddress), id.LocalPort)
}
