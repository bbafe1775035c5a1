package gvisor

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rootlesskit/api"
)

// injector sends raw frames out of the namespace's interface, as anybody with
// CAP_NET_RAW in there can.
type injector struct {
	t  *testing.T
	s  *sandbox
	fd int
	to unix.SockaddrLinklayer
}

func newInjector(t *testing.T, s *sandbox) *injector {
	t.Helper()
	fd, err := socketIn(s.child)(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(s.link.Ifname)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		t.Fatal(err)
	}
	return &injector{t: t, s: s, fd: fd, to: unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32()), Halen: 6}}
}

// packet sends an IP packet.
func (i *injector) packet(b []byte) {
	i.t.Helper()
	proto := uint16(header.IPv4ProtocolNumber)
	if len(b) > 0 && b[0]>>4 == 6 {
		proto = uint16(header.IPv6ProtocolNumber)
	}
	frame := append([]byte{}, i.s.network.plan.gatewayMAC...)
	frame = append(frame, i.s.network.plan.childMAC...)
	frame = binary.BigEndian.AppendUint16(frame, proto)
	i.frame(append(frame, b...))
}

func (i *injector) frame(b []byte) {
	i.t.Helper()
	for {
		err := unix.Sendto(i.fd, b, 0, &i.to)
		switch err {
		case nil:
			return
		case unix.ENOBUFS, unix.EAGAIN: // the queue is full: let the driver run
			pause()
		default:
			i.t.Fatal(err)
		}
	}
}

// ipPacket builds a packet around a transport header and payload.
func ipPacket(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, transport []byte) []byte {
	var f frame
	l := &link{mac: make(net.HardwareAddr, 6)}
	f.ip(l, src, dst, proto, len(transport))
	return append(f.head[headLen:f.n:f.n], transport...)
}

func synPacket(src, dst netip.AddrPort, seq uint32) []byte {
	b := make([]byte, header.TCPMinimumSize)
	t := header.TCP(b)
	t.Encode(&header.TCPFields{
		SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: seq, DataOffset: header.TCPMinimumSize,
		Flags: header.TCPFlagSyn, WindowSize: 65535,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, stackAddr(src.Addr()), stackAddr(dst.Addr()), uint16(len(b)))
	t.SetChecksum(^t.CalculateChecksum(sum))
	return ipPacket(src.Addr(), dst.Addr(), header.TCPProtocolNumber, b)
}

func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, header.UDPMinimumSize+len(payload))
	header.UDP(b).Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(b))})
	copy(b[header.UDPMinimumSize:], payload)
	return ipPacket(src.Addr(), dst.Addr(), header.UDPProtocolNumber, b)
}

// TestHostLoopbackIsClosed asks for the host's loopback services in every way,
// among them packets that no honest kernel sends.
func TestHostLoopbackIsClosed(t *testing.T) {
	s := newSandbox(t, withConfig(noHostLoopback), noLinkLocal)
	reached := make(chan string, 100)
	for _, address := range []string{"127.0.0.1", "127.0.0.77", "[::1]", "169.254.169.254", "[fd00:ec2::254]"} {
		accepts(s.host.ListenTCP(t, "tcp", address+":80"), func(*net.TCPConn) { reached <- "TCP to " + address })
		udp := udpIn(t, s.host, address+":80")
		go func() {
			for {
				if _, _, err := udp.ReadFromUDPAddrPort(make([]byte, 1)); err != nil {
					return
				}
				reached <- "UDP to " + address
			}
		}()
	}
	inject := newInjector(t, s)
	source4, source6 := netip.MustParseAddrPort("10.0.2.100:4444"), netip.AddrPortFrom(s.link.IPv6.Addr(), 4444)
	for n, to := range []string{
		"10.0.2.1:80", "10.0.2.2:80", "10.0.2.3:80", "10.0.2.100:80", "10.0.2.255:80",
		"127.0.0.1:80", "127.0.0.77:80", "127.255.255.255:80", "0.0.0.0:80", "0.0.0.1:80", "255.255.255.255:80", "224.0.0.1:80",
		"169.254.169.254:80", "[fd00:ec2::254]:80",
		"[::1]:80", "[::]:80", "[::ffff:127.0.0.1]:80", "[::ffff:10.0.2.1]:80", "[::127.0.0.1]:80", "[64:ff9b::7f00:1]:80",
		"[ff02::1]:80", "[fe80::1]:80", "[fdc8:5a1d:66e7::1]:80",
	} {
		dst := netip.MustParseAddrPort(to)
		src := source4
		if dst.Addr().Is6() {
			src = source6
		}
		// Also in the name of the destination, and of a loopback address.
		for _, from := range []netip.AddrPort{src, dst, netip.AddrPortFrom(loopbackOf(dst.Addr()), 4444)} {
			inject.packet(synPacket(from, dst, uint32(n)))
			inject.packet(udpPacket(from, dst, []byte("x")))
		}
	}
	// What was sent before has been handled when this comes back.
	server := udpIn(t, s.host, "198.51.100.7:7")
	go echoUDP(server)
	expectUDPEcho(t, udpIn(t, s.child, "10.0.2.100:0"), netip.MustParseAddrPort("198.51.100.7:7"), 10)
	select {
	case what := <-reached:
		t.Errorf("reached: %s", what)
	case <-time.After(200 * time.Millisecond):
	}
}

func loopbackOf(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.MustParseAddr("127.0.0.1")
}

// TestFlood floods the driver from inside with what costs it most: it must not
// grow without bound, and it must work afterwards.
func TestFlood(t *testing.T) {
	s := newSandbox(t)
	accepts(s.host.ListenTCP(t, "tcp", "198.51.100.7:7"), echo)
	hold(t, s.host.ListenTCP(t, "tcp", "198.51.100.7:8"))
	inject := newInjector(t, s)
	for name, send := range floods(s, inject) {
		t.Run(name, func(t *testing.T) {
			for range 5000 {
				send()
			}
			expectEcho(t, mustDial(t, s.child, netip.Addr{}, netip.MustParseAddrPort("198.51.100.7:7")), name)
		})
	}
	if n := runtime.NumGoroutine(); n > maxSources+maxQueries+maxPings+100 {
		t.Errorf("%d goroutines after the floods", n)
	}
	const limit = 100
	if inUse := memoryMiB(); inUse > limit {
		t.Errorf("%d MiB in use after the floods, want at most %d", inUse, limit)
	}
}

// hold accepts connections, and does nothing else: what they take is the driver's.
func hold(t *testing.T, l *net.TCPListener) {
	var held []net.Conn
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
		for _, c := range held {
			c.Close()
		}
	})
}

// floods send one packet each, of a kind that costs the network something.
func floods(s *sandbox, inject *injector) map[string]func() {
	return map[string]func(){
		"connections": func() { // that nobody completes
			inject.packet(synPacket(netip.AddrPortFrom(random4(11), randomPort()), netip.MustParseAddrPort("198.51.100.7:8"), rand.Uint32()))
		},
		"connections to nowhere": func() {
			inject.packet(synPacket(netip.AddrPortFrom(s.link.IPv4.Addr(), randomPort()), netip.AddrPortFrom(random4(12), randomPort()), rand.Uint32()))
		},
		"datagrams to many ports": func() {
			inject.packet(udpPacket(netip.AddrPortFrom(s.link.IPv4.Addr(), 5), netip.AddrPortFrom(hostAddr4, randomPort()), make([]byte, 100)))
		},
		"datagrams from many ports": func() {
			inject.packet(udpPacket(netip.AddrPortFrom(random4(11), randomPort()), netip.AddrPortFrom(hostAddr4, 9), make([]byte, 100)))
		},
		"name queries": func() {
			inject.packet(udpPacket(netip.AddrPortFrom(s.link.IPv4.Addr(), randomPort()), netip.AddrPortFrom(s.network.plan.gateway4, 53), make([]byte, 100)))
		},
		"pings": func() {
			message := make([]byte, 100)
			message[0] = 8
			binary.BigEndian.PutUint16(message[4:], randomPort())
			inject.packet(ipPacket(s.link.IPv4.Addr(), hostAddr4, header.ICMPv4ProtocolNumber, message))
		},
		"fragments": func() {
			b := udpPacket(netip.AddrPortFrom(random4(11), 1), netip.AddrPortFrom(hostAddr4, 9), make([]byte, 8000))
			h := header.IPv4(b)
			h.SetID(uint16(rand.Uint32()))
			h.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
			h.SetChecksum(0)
			h.SetChecksum(^h.CalculateChecksum())
			inject.packet(b)
		},
		"garbage": func() {
			b := make([]byte, 1+rand.IntN(300))
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			b[0] = []byte{0x45, 0x46, 0x60, byte(rand.Uint32())}[rand.IntN(4)]
			inject.packet(b)
		},
	}
}

func random4(prefix byte) netip.Addr {
	return netip.AddrFrom4([4]byte{prefix, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
}

func randomPort() uint16 { return uint16(1 + rand.IntN(65535)) }

// memoryMiB is what the process uses of the memory that Go manages.
func memoryMiB() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int((m.HeapInuse + m.StackInuse) >> 20)
}

func TestPublishedUDPRefused(t *testing.T) {
	s := newSandbox(t)
	for parent, client := range map[string]string{"198.51.100.7": "203.0.113.5:0", "2001:db8:7::7": "[2001:db8:113::5]:0"} {
		p := s.published(api.PortSpec{Proto: "udp", ParentIP: parent, ParentPort: 8080, ChildPort: 9})
		c := udpIn(t, s.host, client)
		var asked uint64
		var again time.Time
		eventually(t, "the counter", func() bool {
			if now := time.Now(); now.After(again) { // a datagram may be lost
				if _, err := c.WriteToUDPAddrPort([]byte("x"), addrPortOf(parent, 8080)); err != nil {
					t.Fatal(err)
				}
				asked, again = asked+1, now.Add(5*time.Second)
			}
			d := details(p)
			return d.Refused > 0 && d.Refused <= asked && d.Active == 0 && strings.Contains(d.LastError, "connection refused")
		})
	}
}

// TestUDPSegmentation sends many datagrams in one system call, which arrive
// here in one packet.
func TestUDPSegmentation(t *testing.T) {
	s := newSandbox(t, withConfig(smallMTU))
	server := udpIn(t, s.host, "198.51.100.7:7")
	conn := connectUDP(t, s.child, netip.MustParseAddrPort("198.51.100.7:7"))
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 10_500)
	for i := range sent {
		sent[i] = byte(i / 1000)
	}
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	for i := range 11 {
		b := make([]byte, 2000)
		n, _, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := min(1000, len(sent)-i*1000); n != want || b[0] != byte(i) {
			t.Errorf("datagram %d: %d bytes of %d", i, n, b[0])
		}
	}
}
