package gvisor

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameServer serves TXT records of the size that the name says, on loopback
// addresses of the host's namespace.
func nameServer(t *testing.T, s *sandbox, ip, mark string) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		size, _ := time.ParseDuration(dns.SplitDomainName(q.Question[0].Name)[0] + "ns")
		text := mark
		for len(text) < int(size) {
			text += "x"
		}
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}}
		for len(text) > 200 {
			rr.Txt, text = append(rr.Txt, text[:200]), text[200:]
		}
		rr.Txt = append(rr.Txt, text)
		m.Answer = []dns.RR{rr}
		if w.LocalAddr().Network() == "udp" {
			limit := dns.MinMsgSize
			if o := q.IsEdns0(); o != nil {
				limit = int(o.UDPSize())
			}
			m.Truncate(limit)
		}
		_ = w.WriteMsg(m)
	})
	serveDNS(t, s, net.JoinHostPort(ip, "5353"), handler)
}

// serveDNS runs a name server in the host, over UDP and TCP. It is patient with
// connections: they may say nothing for longer than its two seconds on a busy machine.
func serveDNS(t *testing.T, s *sandbox, address string, handler dns.Handler) {
	t.Helper()
	for _, server := range []*dns.Server{
		{Listener: s.host.ListenTCP(t, "tcp", address)},
		{PacketConn: s.host.ListenUDP(t, "udp", address)},
	} {
		server.Handler = handler
		server.ReadTimeout = time.Minute
		server.IdleTimeout = func() time.Duration { return time.Minute }
		var started sync.WaitGroup
		started.Add(1)
		server.NotifyStartedFunc = started.Done
		go server.ActivateAndServe()
		started.Wait()
		t.Cleanup(func() { server.Shutdown() })
	}
}

func writeResolvConf(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func withResolvConf(path string) option {
	return withNetwork(func(n *Network) { n.resolvers.path = path })
}

// query asks over an open connection of the namespace.
func query(t *testing.T, conn net.Conn, name string, udpSize uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeTXT)
	if udpSize > 0 {
		q.SetEdns0(udpSize, false)
	}
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(ask(t, conn, packed)); err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	if m.Id != q.Id {
		t.Errorf("the answer has another ID")
	}
	return m
}

func ask(t *testing.T, conn net.Conn, query []byte) (answer []byte) {
	t.Helper()
	send(t, conn, query)
	return answerTo(t, conn, query)
}

func send(t *testing.T, conn net.Conn, query []byte) {
	t.Helper()
	if _, err := (&dns.Conn{Conn: conn}).Write(query); err != nil {
		t.Fatal(err)
	}
}

// repeated has the IDs of queries that were sent again, and may be answered again.
var repeated sync.Map

// answerTo waits for the answer to a query. Over UDP it asks again every five seconds,
// as resolvers do: the driver gives a name server four.
func answerTo(t *testing.T, conn net.Conn, query []byte) []byte {
	t.Helper()
	patience := time.Minute
	if _, udp := conn.(net.PacketConn); udp {
		patience = 5 * time.Second
	}
	for end := time.Now().Add(time.Minute); ; {
		_ = conn.SetDeadline(time.Now().Add(patience))
		answer, err := readAnswer(conn, query)
		if err == nil {
			return answer
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			t.Fatal(err)
		}
		repeated.Store(messageID(query), true)
		send(t, conn, query)
	}
}

// readAnswer reads past what answers an earlier query once more.
func readAnswer(conn net.Conn, query []byte) ([]byte, error) {
	b := make([]byte, 65535)
	for {
		n, err := (&dns.Conn{Conn: conn}).Read(b)
		if err != nil {
			return nil, err
		}
		id := messageID(b)
		if _, again := repeated.Load(id); id == messageID(query) || !again {
			return b[:n], nil
		}
	}
}

func messageID(message []byte) uint16 { return binary.BigEndian.Uint16(message) }

func textSize(m *dns.Msg) (n int) {
	for _, rr := range m.Answer {
		for _, s := range rr.(*dns.TXT).Txt {
			n += len(s)
		}
	}
	return n
}

func TestDNS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, "search example.com\nnameserver 127.0.0.53\n")
	s := newSandbox(t, withConfig(noHostLoopback), withResolvConf(path))
	nameServer(t, s, "127.0.0.53", "a")
	for _, server := range s.link.DNS {
		testDNS(t, s, netip.AddrPortFrom(server, 53))
	}
	testDNS(t, s, netip.MustParseAddrPort("10.0.2.3:53"))
}

func testDNS(t *testing.T, s *sandbox, server netip.AddrPort) {
	udp := connectUDP(t, s.child, server)
	for _, c := range []struct {
		name      string
		udpSize   uint16
		want      int
		truncated bool
	}{
		{"20.test.", 0, 20, false},
		{"450.test.", 0, 450, false},
		{"1100.test.", 1232, 1100, false},
		{"3500.test.", 4096, 3500, false},
		{"20000.test.", 65535, 20000, false},
		{"600.test.", 0, 0, true},
		{"3000.test.", 1232, 0, true},
	} {
		m := query(t, udp, c.name, c.udpSize)
		if m.Truncated != c.truncated || !c.truncated && textSize(m) != c.want {
			t.Errorf("%s over UDP from %s: %d bytes, truncated %v", c.name, server, textSize(m), m.Truncated)
		}
	}
	tcp := mustDial(t, s.child, netip.Addr{}, server)
	for _, name := range []string{"20.test.", "600.test.", "1500.test.", "30000.test."} {
		if m := query(t, tcp, name, 0); m.Truncated || m.Rcode != dns.RcodeSuccess || textSize(m) == 0 {
			t.Errorf("%s over TCP from %s: %v", name, server, m.MsgHdr)
		}
	}
}

func TestDNSTriesTheNextServerAndFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	// Nobody listens at the first: it refuses at once.
	writeResolvConf(t, path, "nameserver 127.0.0.52\nnameserver 127.0.0.53\n")
	s := newSandbox(t, withResolvConf(path))
	nameServer(t, s, "127.0.0.53", "second")
	nameServer(t, s, "::1", "other")
	udp := connectUDP(t, s.child, netip.MustParseAddrPort("10.0.2.1:53"))
	answer := func() string {
		m := query(t, udp, "0.test.", 0)
		return m.Answer[0].(*dns.TXT).Txt[0]
	}
	if got := answer(); got != "second" {
		t.Errorf("answer of %q", got)
	}
	tcp := mustDial(t, s.child, netip.Addr{}, netip.MustParseAddrPort("10.0.2.1:53"))
	if got := query(t, tcp, "0.test.", 0).Answer[0].(*dns.TXT).Txt[0]; got != "second" {
		t.Errorf("answer over TCP of %q", got)
	}
	writeResolvConf(t, path, "nameserver ::1\n")
	eventually(t, "the new server", func() bool { return answer() == "other" })
}

// TestDNSFollowsASwitchedFile: it may be replaced by another, or be a link that comes to
// lead elsewhere, to a file of the same size and the same time (NixOS and others give all
// files one).
func TestDNSFollowsASwitchedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	for name, content := range map[string]string{
		"first": "nameserver 127.0.0.53\n", "second": "nameserver 127.0.0.54\n", "renamed": "nameserver 127.0.0.55\n",
	} {
		writeResolvConf(t, filepath.Join(dir, name), content)
		if err := os.Chtimes(filepath.Join(dir, name), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink("first", path))
	s := newSandbox(t, withResolvConf(path))
	for ip, text := range map[string]string{"127.0.0.53": "first", "127.0.0.54": "second", "127.0.0.55": "renamed"} {
		nameServer(t, s, ip, text)
	}
	udp := connectUDP(t, s.child, netip.MustParseAddrPort("10.0.2.1:53"))
	answered := func(want string) {
		t.Helper()
		eventually(t, "an answer of the "+want+" server", func() bool {
			return query(t, udp, "0.test.", 0).Answer[0].(*dns.TXT).Txt[0] == want
		})
	}
	answered("first")
	must(os.Symlink("second", path+".new"))
	must(os.Rename(path+".new", path))
	answered("second")
	must(os.Rename(filepath.Join(dir, "renamed"), path))
	answered("renamed")
	must(os.Remove(path)) // for a while there may be none
	answered("renamed")
	must(os.Symlink("first", path))
	answered("first")
}

// TestDNSMixesNothingUp has many queries of the same ID under way.
func TestDNSMixesNothingUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, "nameserver 127.0.0.53\n")
	s := newSandbox(t, withResolvConf(path))
	nameServer(t, s, "127.0.0.53", "")
	server := netip.MustParseAddrPort("10.0.2.1:53")
	var conns []net.Conn
	var queries [][]byte
	for i := range 50 {
		conn := connectUDP(t, s.child, server)
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(string(rune('0'+i/10))+string(rune('0'+i%10))+".test"), dns.TypeTXT)
		q.Id = 7
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, b)
		conns, queries = append(conns, conn), append(queries, b)
	}
	for i, conn := range conns {
		m := new(dns.Msg)
		if err := m.Unpack(answerTo(t, conn, queries[i])); err != nil || textSize(m) != i {
			t.Errorf("query %d: answer of %d bytes, %v", i, textSize(m), err)
		}
	}
}

// TestDNSHandsOnNoOtherAnswer: what has another ID is not an answer to the query.
func TestDNSHandsOnNoOtherAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, "nameserver 127.0.0.53\n")
	s := newSandbox(t, withResolvConf(path))
	server := s.host.ListenUDP(t, "udp", "127.0.0.53:5353")
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			b[0] ^= 1
			_, _ = server.WriteTo(b[:n], from)
			b[0] ^= 1
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	query(t, connectUDP(t, s.child, netip.MustParseAddrPort("10.0.2.1:53")), "1.test.", 0)
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf([]byte("# comment\nnameserver\t192.0.2.1\nnameserver bad\n;nameserver 192.0.2.2\noptions edns0\n"+
		"nameserver fe80::1%eth0\nnameserver ::ffff:192.0.2.3 # three\nnameserver 192.0.2.4\n"), 53)
	want := []string{"192.0.2.1:53", "[fe80::1%eth0]:53", "192.0.2.3:53"}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i].String() != want[i] {
			t.Errorf("server %d: %s, want %s", i, got[i], want[i])
		}
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, a := range parseResolvConf(b, 53) {
			if !a.IsValid() {
				t.Errorf("invalid server of %q", b)
			}
		}
	})
}
