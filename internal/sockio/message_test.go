package sockio_test

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// inbox receives datagrams with all that is said of them.
type inbox struct {
	msgs    [4]sockio.Message
	iov     [4]unix.Iovec
	from    [4]sockio.Addr
	buf     [4][4096]byte
	control [4][sockio.ControlSize]byte
}

func (in *inbox) receive(t testing.TB, fd int) int {
	t.Helper()
	wait(t, fd, unix.POLLIN)
	for i := range in.msgs {
		in.iov[i].Base = &in.buf[i][0]
		in.iov[i].SetLen(len(in.buf[i]))
		in.msgs[i].SetData(&in.iov[i], 1)
		in.msgs[i].SetRoom(&in.from[i], in.control[i][:])
	}
	n, errno := sockio.ReceiveAll(fd, in.msgs[:], 0)
	if errno != 0 {
		t.Fatalf("receive: %v", errno)
	}
	return n
}

// TestDatagrams sends several messages with one call and answers one of them from
// the address that was asked, on a socket with all addresses.
func TestDatagrams(t *testing.T) {
	for wildcard, asked := range map[string]string{"0.0.0.0:0": "127.0.0.3", "[::]:0": "::1"} {
		t.Run(wildcard, func(t *testing.T) {
			ip := netip.MustParseAddr(asked)
			family := sockio.Family(ip)
			server := socket(t, unix.SOCK_DGRAM, wildcard)
			client := socket(t, unix.SOCK_DGRAM, netip.AddrPortFrom(ip, 0).String())
			if err := sockio.TellLocal(server, family); err != nil {
				t.Fatal(err)
			}
			to := sockio.AddrOf(netip.AddrPortFrom(ip, sockio.LocalAddr(server).Port()))
			sendTwo(t, client, &to)
			in := new(inbox)
			if n := in.receive(t, server); n != 2 || in.msgs[0].Len() != 3 || in.msgs[1].Len() != 0 {
				t.Fatalf("%d messages of %d and %d bytes", n, in.msgs[0].Len(), in.msgs[1].Len())
			}
			info := sockio.ParseInfo(in.msgs[0].Received(&in.from[0], in.control[0][:]))
			if in.from[0].AddrPort() != sockio.LocalAddr(client) || info.LocalAddr() != ip || info.Segment != 0 {
				t.Errorf("from %v: %+v", in.from[0].AddrPort(), info)
			}
			local := sockio.AppendLocal(nil, family, &info)
			if errno := sockio.SendTo(server, []byte("answer"), local, &in.from[0]); errno != 0 {
				t.Fatalf("send: %v", errno)
			}
			in.receive(t, client)
			in.msgs[0].Received(&in.from[0], in.control[0][:])
			if got := in.from[0].AddrPort(); got != to.AddrPort() {
				t.Errorf("the answer comes from %s, want %s", got, to.AddrPort())
			}
		})
	}
}

// sendTwo sends a datagram of two buffers, and an empty one.
func sendTwo(t testing.TB, fd int, to *sockio.Addr) {
	t.Helper()
	parts := [][]byte{[]byte("a"), []byte("bc")}
	var iov [2]unix.Iovec
	for i, part := range parts {
		iov[i].Base = &part[0]
		iov[i].SetLen(len(part))
	}
	msgs := make([]sockio.Message, 2)
	msgs[0].SetData(&iov[0], len(iov))
	msgs[0].SetAddr(to)
	msgs[1].SetAddr(to)
	if n, errno := sockio.SendAll(fd, msgs); n != 2 || errno != 0 {
		t.Fatalf("sent %d: %v", n, errno)
	}
}

// TestSegments: the kernel cuts a message apart, and puts it together again for a
// socket that asks for it.
func TestSegments(t *testing.T) {
	server, client := socket(t, unix.SOCK_DGRAM, "127.0.0.1:0"), socket(t, unix.SOCK_DGRAM, "127.0.0.1:0")
	to := sockio.AddrOf(sockio.LocalAddr(server))
	payload := bytes.Repeat([]byte("0123456789"), 25)
	cut := sockio.AppendSegment(nil, 100)
	if errno := sockio.SendTo(client, payload, cut, &to); errno != 0 {
		t.Fatalf("send: %v", errno)
	}
	in := new(inbox)
	var sizes []int
	for range in.receive(t, server) {
		sizes = append(sizes, in.msgs[len(sizes)].Len())
	}
	if len(sizes) != 3 || sizes[0] != 100 || sizes[1] != 100 || sizes[2] != 50 {
		t.Errorf("datagrams of %v bytes", sizes)
	}
	if err := unix.SetsockoptInt(server, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
		t.Skipf("UDP_GRO: %v", err)
	}
	if errno := sockio.SendTo(client, payload, cut, &to); errno != 0 {
		t.Fatalf("send: %v", errno)
	}
	n := in.receive(t, server)
	info := sockio.ParseInfo(in.msgs[0].Received(&in.from[0], in.control[0][:]))
	if n != 1 || info.Segment != 100 || !bytes.Equal(in.buf[0][:in.msgs[0].Len()], payload) {
		t.Errorf("%d messages, the first of %d bytes: %+v", n, in.msgs[0].Len(), info)
	}
}

func TestControl(t *testing.T) {
	linkLocal := sockio.Info{Local: [16]byte{0: 0xfe, 1: 0x80, 15: 7}, Interface: 3}
	if got := sockio.ParseInfo(sockio.AppendLocal(nil, unix.AF_INET6, &linkLocal)); got != linkLocal {
		t.Errorf("got %+v, want %+v", got, linkLocal)
	}
	global := sockio.Info{Local: [16]byte{0: 0x20, 15: 7}, Interface: 3}
	if got := sockio.ParseInfo(sockio.AppendLocal(nil, unix.AF_INET6, &global)); got.Interface != 0 || got.Local != global.Local {
		t.Errorf("a global address is of interface %d", got.Interface)
	}
	v4 := sockio.Info{Local: sockio.Mapped([4]byte{192, 0, 2, 1})}
	both := sockio.AppendInt(sockio.AppendLocal(nil, unix.AF_INET, &v4), unix.SOL_UDP, unix.UDP_GRO, 1200)
	if got := sockio.ParseInfo(both); got.Local != v4.Local || got.Segment != 1200 {
		t.Errorf("got %+v", got)
	}
	if a := (&sockio.Info{}).LocalAddr(); a.IsValid() {
		t.Errorf("no address is %s", a)
	}
}

func FuzzControl(f *testing.F) {
	f.Add(sockio.AppendLocal(nil, unix.AF_INET6, &sockio.Info{Interface: 1}))
	f.Add(sockio.AppendLocal(nil, unix.AF_INET, &sockio.Info{}))
	f.Add(sockio.AppendInt(nil, unix.SOL_UDP, unix.UDP_GRO, -1))
	f.Fuzz(func(t *testing.T, b []byte) {
		sockio.ParseInfo(b)
		for h, data, rest := sockio.NextControl(b); h != nil; h, data, rest = sockio.NextControl(rest) {
			if len(data)+len(rest) >= len(b) {
				t.Fatalf("%x: no end", b)
			}
			b = rest
		}
	})
}
