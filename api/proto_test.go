package api

import "testing"

func TestProto(t *testing.T) {
	for _, c := range []struct {
		proto     Proto
		transport string
		family    int
	}{
		{"tcp", TCP, 0}, {"tcp4", TCP, 4}, {"tcp6", TCP, 6},
		{"udp", UDP, 0}, {"udp4", UDP, 4}, {"udp6", UDP, 6},
		{"sctp", SCTP, 0}, {"sctp4", SCTP, 4}, {"sctp6", SCTP, 6},
	} {
		if c.proto.Transport() != c.transport || c.proto.Family() != c.family || !c.proto.known() {
			t.Errorf("%s: transport %q, family %d, known %v", c.proto, c.proto.Transport(), c.proto.Family(), c.proto.known())
		}
	}
	for _, p := range []Proto{"", "4", "tcp46", "tcp44", "TCP", "ip", "tcp "} {
		if t4 := p.Transport(); t4 == TCP || p.known() {
			t.Errorf("%q is of the transport %q, known: %v", p, t4, p.known())
		}
	}
}
