package gvisor

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/sockio"
)

// FuzzFrames gives frames to a whole network, whose device is one end of a
// socket pair, and whose host has no sockets to give.
func FuzzFrames(f *testing.F) {
	r, l := newFuzzReader(f)
	var head [headLen]byte
	r.link.putEther(head[vnetLen:], header.IPv4ProtocolNumber)
	copy(head[vnetLen:], r.link.mac)
	for _, p := range fuzzSeeds() {
		proto := header.IPv4ProtocolNumber
		if p[0]>>4 == 6 {
			proto = header.IPv6ProtocolNumber
		}
		head[headLen-2], head[headLen-1] = byte(proto>>8), byte(proto)
		f.Add(append(head[:headLen:headLen], p...))
	}
	head[headLen-2], head[headLen-1] = byte(header.ARPProtocolNumber>>8), byte(header.ARPProtocolNumber&0xff)
	f.Add(append(head[:headLen:headLen], 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x6b, 0, 0, 0, 100, 10, 0, 2, 100, 0, 0, 0, 0, 0, 0, 10, 0, 2, 1))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) <= headLen || len(b) > headLen+maxPacket {
			return
		}
		l.mail.Call(func() { // whose connections they are
			copy(r.head[:], b)
			r.frame(copy(r.packet, b[headLen:]))
		})
	})
}

func newFuzzReader(f *testing.F) (*reader, *loop) {
	network, err := New(driver.NetworkConfig{MTU: 1500, CIDR: netip.MustParsePrefix("10.0.2.0/24"), Ifname: "tap0", IPv6: true}, flags{})
	if err != nil {
		f.Fatal(err)
	}
	n := network.(*Network)
	n.log = slog.New(slog.DiscardHandler)
	n.socket = func(int, int, int) (int, error) { return -1, unix.EACCES }
	n.resolvers = &resolvers{path: "/dev/null", port: dnsPort}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(pair[1]) })
	ctx, cancel := context.WithCancel(context.Background())
	if err := n.start(ctx, pair[0]); err != nil {
		f.Fatal(err)
	}
	go n.run(ctx, cancel)
	f.Cleanup(func() {
		cancel()
		if err := n.Wait(); err != nil {
			f.Error(err)
		}
	})
	return &reader{link: n.link, packet: make([]byte, maxPacket)}, n.loop
}

// fuzzSeeds are packets of all kinds that the driver handles.
func fuzzSeeds() [][]byte {
	child4, child6 := netip.MustParseAddrPort("10.0.2.100:4444"), netip.MustParseAddrPort("[fdc8:5a1d:66e7::100]:4444")
	world4, world6 := netip.MustParseAddrPort("198.51.100.7:80"), netip.MustParseAddrPort("[2001:db8::7]:80")
	dns4 := netip.MustParseAddrPort("10.0.2.3:53")
	echo4 := []byte{8, 0, 0, 0, 0, 7, 0, 1, 'x'}
	echo6 := []byte{128, 0, 0, 0, 0, 7, 0, 1, 'x'}
	solicit := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("fdc8:5a1d:66e7::1").AsSlice()...)
	seeds := [][]byte{
		synPacket(child4, world4, 1), synPacket(child6, world6, 1),
		udpPacket(child4, world4, []byte("hello")), udpPacket(child6, world6, []byte("hello")),
		udpPacket(child4, dns4, make([]byte, 30)),
		ipPacket(child4.Addr(), world4.Addr(), header.ICMPv4ProtocolNumber, echo4),
		ipPacket(child6.Addr(), world6.Addr(), header.ICMPv6ProtocolNumber, echo6),
		ipPacket(child6.Addr(), netip.MustParseAddr("ff02::1:ff00:1"), header.ICMPv6ProtocolNumber, solicit),
	}
	refused := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, udpPacket(world4, child4, nil)...)
	seeds = append(seeds, ipPacket(child4.Addr(), world4.Addr(), header.ICMPv4ProtocolNumber, refused))
	fragment := udpPacket(child4, world4, make([]byte, 100))
	h := header.IPv4(fragment)
	h.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
	return append(seeds, fragment)
}

func FuzzParsePacket(f *testing.F) {
	for _, p := range fuzzSeeds() {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseIP(b)
		if !ok {
			return
		}
		if len(p.payload) > len(b) || !p.src.IsValid() || !p.dst.IsValid() {
			t.Errorf("impossible packet of %x", b)
		}
		if u, ok := parseUDP(p); ok && len(u.payload) > len(p.payload) {
			t.Errorf("impossible datagram of %x", b)
		}
		parseUnreachable(p)
		isEchoRequest(p)
	})
}

func FuzzControlMessages(f *testing.F) {
	f.Add(hopLimit(7, true))
	f.Add(sockio.AppendInt(nil, unix.SOL_IP, unix.IP_RECVERR, 1))
	f.Fuzz(func(_ *testing.T, b []byte) { parseNetworkError(b) })
}
