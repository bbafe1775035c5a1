package gvisor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rootlesskit/internal/nstest"
)

// oddities are what answers may have, by the first label of the question's name.
var oddities = map[string]func(m *dns.Msg){
	"plain":     func(*dns.Msg) {},
	"nxdomain":  func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Ns = records(". 60 IN SOA a. b. 1 2 3 4 5") },
	"servfail":  func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure },
	"refused":   func(m *dns.Msg) { m.Rcode = dns.RcodeRefused },
	"formerr":   func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError; m.Question = nil },
	"notimp":    func(m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented },
	"authentic": func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled, m.Authoritative = true, true, true },
	"truncated": func(m *dns.Msg) { m.Truncated = true },
	"alias":     func(m *dns.Msg) { m.Answer = records("x. 1 IN CNAME y.", "y. 1 IN CNAME z.", "z. 1 IN AAAA ::1") },
	"unknown":   func(m *dns.Msg) { m.Answer = records(`x. 1 IN TYPE65400 \# 3 c0ffee`) },
	"mail":      func(m *dns.Msg) { m.Answer = records("x. 1 IN MX 10 x.", "x. 1 IN SRV 1 2 3 x.") },
	"chaos":     func(m *dns.Msg) { m.Answer = records(`version.bind. 0 CH TXT "secret"`) },
	"rest":      func(m *dns.Msg) { m.Ns, m.Extra = records("x. 1 IN NS y."), records("y. 1 IN A 192.0.2.1") },
	"option":    func(m *dns.Msg) { m.SetEdns0(1232, true) },
	"badvers":   func(m *dns.Msg) { m.SetEdns0(1232, false); m.Rcode = dns.RcodeBadVers },
	"compress": func(m *dns.Msg) {
		m.Compress = true
		m.Answer = records("x.test. 1 IN NS a.x.test.", "x.test. 1 IN NS b.x.test.")
	},
	"notify":  func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
	"lengthy": func(m *dns.Msg) { m.Answer = records(strings.Repeat("x. 1 IN TXT "+strings.Repeat("y", 200)+"\n", 5)) },
}

func records(lines ...string) (all []dns.RR) {
	for p := dns.NewZoneParser(strings.NewReader(strings.Join(lines, "\n")+"\n"), "", ""); ; {
		rr, ok := p.Next()
		if !ok {
			return all
		}
		all = append(all, rr)
	}
}

// serveOddities runs a name server in the host.
func serveOddities(t *testing.T, s *sandbox, address string) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		oddities[strings.ToLower(dns.SplitDomainName(q.Question[0].Name)[0])](m)
		_ = w.WriteMsg(m)
	})
	serveDNS(t, s, address, handler)
}

// TestDNSAnswersAreTheHosts: inside they are byte by byte what the host gets, over UDP
// and TCP.
func TestDNSAnswersAreTheHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, "nameserver 127.0.0.53\n")
	s := newSandbox(t, withConfig(noHostLoopback), withResolvConf(path))
	serveOddities(t, s, "127.0.0.53:5353")
	direct, relayed := netip.MustParseAddrPort("127.0.0.53:5353"), netip.MustParseAddrPort("10.0.2.1:53")
	for name := range oddities {
		for _, q := range []*dns.Msg{
			new(dns.Msg).SetQuestion(name+".test.", dns.TypeA),
			new(dns.Msg).SetQuestion(strings.ToUpper(name)+".Test.", dns.TypeANY).SetEdns0(4096, true),
		} {
			packed, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			for _, ask := range []func(*testing.T, *nstest.Child, netip.AddrPort, []byte) []byte{askUDP, askTCP} {
				want, got := ask(t, s.host, direct, packed), ask(t, s.child, relayed, packed)
				if len(want) < 12 || !bytes.Equal(got, want) {
					t.Errorf("%s: the answer inside is\n%x\nthe host's\n%x", name, got, want)
				}
			}
		}
	}
}

func askUDP(t *testing.T, from *nstest.Child, server netip.AddrPort, query []byte) []byte {
	t.Helper()
	c := connectUDP(t, from, server)
	defer c.Close()
	return ask(t, c, query)
}

func askTCP(t *testing.T, from *nstest.Child, server netip.AddrPort, query []byte) []byte {
	t.Helper()
	c := mustDial(t, from, netip.Addr{}, server)
	defer c.Close()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		t.Fatal(err)
	}
	const prefix = 2 // the length
	b := make([]byte, prefix+65535)
	n := 0
	for n < prefix || n < prefix+int(binary.BigEndian.Uint16(b)) {
		more, err := c.Read(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += more
	}
	return b[prefix:n]
}
