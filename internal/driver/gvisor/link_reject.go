package gvisor

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdictError is a refusal by the policy.
type verdictError verdict

func (v verdictError) Error() string { return "closed by policy" }

// errTimeExceeded says that a packet must not be forwarded further: the gateway
// counts as a hop.
var errTimeExceeded = errors.New("time to live exceeded in transit")

// icmpMessage is the type and code of an ICMP error.
type icmpMessage struct{ kind, code byte }

// rejection is an ICMP error in both versions of IP (RFC 792, RFC 1812, RFC
// 4443).
type rejection struct{ v4, v6 icmpMessage }

// of is the message of a version of IP.
func (r rejection) of(is6 bool) icmpMessage {
	if is6 {
		return r.v6
	}
	return r.v4
}

const (
	unreachable4 = byte(header.ICMPv4DstUnreachable)
	unreachable6 = byte(header.ICMPv6DstUnreachable)
)

var (
	netUnreachable  = rejection{icmpMessage{unreachable4, byte(header.ICMPv4NetUnreachable)}, icmpMessage{unreachable6, byte(header.ICMPv6NetworkUnreachable)}}
	hostUnreachable = rejection{icmpMessage{unreachable4, byte(header.ICMPv4HostUnreachable)}, icmpMessage{unreachable6, byte(header.ICMPv6AddressUnreachable)}}
	portUnreachable = rejection{icmpMessage{unreachable4, byte(header.ICMPv4PortUnreachable)}, icmpMessage{unreachable6, byte(header.ICMPv6PortUnreachable)}}
	prohibited      = rejection{icmpMessage{unreachable4, byte(header.ICMPv4AdminProhibited)}, icmpMessage{unreachable6, byte(header.ICMPv6Prohibited)}}
	timeExceeded    = rejection{icmpMessage{byte(header.ICMPv4TimeExceeded), 0}, icmpMessage{byte(header.ICMPv6TimeExceeded), 0}}
)

// rejectionFor returns the ICMP error for a failure to send or connect. It
// returns none for a timeout, or for a shortage that may be temporary.
func rejectionFor(err error) (rejection, bool) {
	switch {
	case err == verdictError(refuse):
		return portUnreachable, true
	case err == verdictError(unroutable), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
		return netUnreachable, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return hostUnreachable, true
	case err == verdictError(prohibit), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return prohibited, true
	case err == errTimeExceeded:
		return timeExceeded, true
	}
	return rejection{}, false
}

// errnoFor is what connect(2) returns after such a message (icmp_err_convert and
// icmpv6_err_convert of the kernel). A prohibition differs by the version.
func errnoFor(message icmpMessage, is6 bool) unix.Errno {
	switch {
	case message == netUnreachable.of(is6):
		return unix.ENETUNREACH
	case message == portUnreachable.of(is6):
		return unix.ECONNREFUSED
	case is6 && message == prohibited.v6:
		return unix.EACCES
	}
	return unix.EHOSTUNREACH
}

// reject tells the namespace why a packet of a flow could not be delivered. The
// message comes from the gateway or, if the destination refused, from there.
// seq is the sequence number of the TCP segment or ping, by which the namespace
// recognizes it.
func (w *frameWriter) reject(err error, f flow, seq uint32) {
	r, known := rejectionFor(err)
	if !known {
		return
	}
	from := w.plan.gateway(f.dst.Addr().Is6())
	if r == portUnreachable {
		from = f.dst.Addr()
	}
	message := r.of(f.dst.Addr().Is6())
	w.icmpError(from, message.kind, message.code, 0, f, seq)
}
