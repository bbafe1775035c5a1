package gvisor

import (
	"fmt"
	"net/netip"
	"time"

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

// timeWait is short, since nothing on this wire arrives late.
const timeWait = 200 * time.Millisecond

// newStack makes the stack with its interface on the link.
func newStack(l *link, p *plan) (*stack.Stack, error) {
	silenceLibrary()
	opts := stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4},
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
	if err := setTCPOptions(s); err != nil {
		return err
	}
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

// setTCPOptions tunes TCP for a wire inside of one machine, which neither
// loses nor reorders: RACK's timers cost more than they find.
func setTCPOptions(s *stack.Stack) error {
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRecovery(0)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &recovery, &moderate, &wait} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("setting %T of the stack: %s", o, err)
		}
	}
	if err := setSocketBuffers(s, maxSocketBuffer); err != nil {
		return fmt.Errorf("setting the stack's buffers: %s", err)
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

// abortEndpoints resets all connections of the stack, and ends handshakes in
// progress.
func abortEndpoints(s *stack.Stack) {
	for _, e := range s.RegisteredEndpoints() {
		e.Abort()
	}
}

func networkProtocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is6() {
		return ipv6.ProtocolNumber
	}
	return ipv4.ProtocolNumber
}

func stackAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: stackAddr(a.Addr()), Port: a.Port()}
}

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
