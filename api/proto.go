package api

import "slices"

// Proto is the protocol of a port: a transport, and "4" or "6" where the port is for
// one IP family.
type Proto string

// The transports.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
)

// protos lists every protocol that a PortSpec can name. The port driver decides
// which of them it forwards (PortDriverInfo.Protos).
var protos = []Proto{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "sctp", "sctp4", "sctp6"}

// Transport returns the protocol without the family: TCP, UDP or SCTP.
func (p Proto) Transport() string {
	if p.Family() != 0 {
		p = p[:len(p)-1]
	}
	return string(p)
}

// Family returns 4 or 6 for a protocol of one IP family, and 0 for one that leaves the
// family to the address.
func (p Proto) Family() int {
	switch {
	case p == "":
	case p[len(p)-1] == '4':
		return 4
	case p[len(p)-1] == '6':
		return 6
	}
	return 0
}

func (p Proto) known() bool { return slices.Contains(protos, p) }
