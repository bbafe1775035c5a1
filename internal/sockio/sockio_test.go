package sockio_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/nstest"
	"rootlesskit/internal/sockio"
)

// socket returns a nonblocking socket of an address's family, bound to it.
func socket(t testing.TB, kind int, addr string) int {
	t.Helper()
	to := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(sockio.Family(to.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockio.Close(fd) })
	if errno := sockio.Bind(fd, to); errno != 0 {
		t.Fatalf("bind %s: %v", to, errno)
	}
	return fd
}

// wait waits for an event of a descriptor.
func wait(t testing.TB, fd int, event int16) {
	t.Helper()
	if events, err := nstest.Poll(fd, event, time.Minute); err != nil || events == 0 {
		t.Fatalf("poll: %d events, %v", events, err)
	}
}

var loopbacks = []string{"127.0.0.1:0", "[::1]:0"}

func TestConnections(t *testing.T) {
	for _, addr := range loopbacks {
		t.Run(addr, func(t *testing.T) {
			client, server := connect(t, addr)
			if n, errno := sockio.Read(server, make([]byte, 4)); n != 0 || errno != unix.EAGAIN {
				t.Errorf("read of nothing: %d, %v", n, errno)
			}
			if n, errno := sockio.Send(client, []byte("hello")); n != 5 || errno != 0 {
				t.Fatalf("send: %d, %v", n, errno)
			}
			wait(t, server, unix.POLLIN)
			if n := sockio.Unread(server); n != 5 {
				t.Errorf("%d bytes to be read", n)
			}
			head, tail := make([]byte, 2), make([]byte, 8)
			iov := []unix.Iovec{{Base: &head[0]}, {Base: &tail[0]}}
			iov[0].SetLen(len(head))
			iov[1].SetLen(len(tail))
			if n, errno := sockio.Readv(server, iov); n != 5 || errno != 0 || string(head)+string(tail[:3]) != "hello" {
				t.Errorf("readv: %d, %v, %q %q", n, errno, head, tail)
			}
			iov[1].SetLen(3)
			if n, errno := sockio.Writev(server, iov); n != 5 || errno != 0 {
				t.Errorf("writev: %d, %v", n, errno)
			}
			wait(t, client, unix.POLLIN)
			b := make([]byte, 8)
			if n, errno := sockio.Read(client, b); string(b[:n]) != "hello" || errno != 0 {
				t.Errorf("read: %q, %v", b[:n], errno)
			}
			sockio.ShutdownWrite(client)
			wait(t, server, unix.POLLRDHUP)
			if n, errno := sockio.Read(server, b); n != 0 || errno != 0 {
				t.Errorf("read at the end: %d, %v", n, errno)
			}
		})
	}
}

// connect returns the two ends of a connection.
func connect(t testing.TB, addr string) (client, server int) {
	t.Helper()
	listener := socket(t, unix.SOCK_STREAM, addr)
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	if conn, _, errno := sockio.Accept(listener); conn != -1 || errno != unix.EAGAIN {
		t.Fatalf("accept of nobody: %d, %v", conn, errno)
	}
	client = socket(t, unix.SOCK_STREAM, addr)
	sockio.PrepareTCP(client)
	if errno := sockio.Connect(client, sockio.LocalAddr(listener)); errno != 0 && errno != unix.EINPROGRESS {
		t.Fatalf("connect: %v", errno)
	}
	wait(t, listener, unix.POLLIN)
	server, peer, errno := sockio.Accept(listener)
	if errno != 0 || peer != sockio.LocalAddr(client) {
		t.Fatalf("accept: %v, of %v", errno, peer)
	}
	t.Cleanup(func() { sockio.Close(server) })
	return client, server
}

// TestReset: the peer of a socket that is closed after Reset gets a reset.
func TestReset(t *testing.T) {
	client, server := connect(t, "127.0.0.1:0")
	dup, err := unix.Dup(client) // the test closes client at its end
	if err != nil {
		t.Fatal(err)
	}
	sockio.Reset(client)
	if err := unix.Dup3(server, client, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	sockio.Close(dup)
	wait(t, server, unix.POLLIN)
	if _, errno := sockio.Read(server, make([]byte, 1)); errno != unix.ECONNRESET {
		t.Errorf("read: %v", errno)
	}
}

func TestSplice(t *testing.T) {
	client, server := connect(t, "127.0.0.1:0")
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer sockio.CloseAll(pipe[:])
	if n, errno := sockio.Splice(server, pipe[1], 100); n != 0 || errno != unix.EAGAIN {
		t.Errorf("splice of nothing: %d, %v", n, errno)
	}
	if n, errno := sockio.Write(client, []byte("page")); n != 4 || errno != 0 {
		t.Fatalf("write: %d, %v", n, errno)
	}
	wait(t, server, unix.POLLIN)
	if n, errno := sockio.Splice(server, pipe[1], 100); n != 4 || errno != 0 {
		t.Fatalf("splice: %d, %v", n, errno)
	}
	b := make([]byte, 8)
	if n, _ := sockio.Read(pipe[0], b); string(b[:n]) != "page" {
		t.Errorf("got %q", b[:n])
	}
}

func TestOptions(t *testing.T) {
	fd := socket(t, unix.SOCK_STREAM, "127.0.0.1:0")
	sockio.SetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); v != 1 || err != nil {
		t.Errorf("SO_REUSEADDR: %d, %v", v, err)
	}
	sockio.SetString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
	if v, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); v != "reno" || err != nil {
		t.Errorf("TCP_CONGESTION: %q, %v", v, err)
	}
	sockio.PrepareTCP(fd)
	for option, want := range map[int]int{
		unix.TCP_NODELAY: 1, unix.TCP_KEEPIDLE: sockio.KeepAliveIdle,
		unix.TCP_KEEPINTVL: sockio.KeepAliveInterval, unix.TCP_KEEPCNT: sockio.KeepAliveCount,
	} {
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); v != want || err != nil {
			t.Errorf("option %d: %d, %v, want %d", option, v, err, want)
		}
	}
}

func TestFailures(t *testing.T) {
	b := make([]byte, 1)
	calls := map[string]func(fd int) (int, unix.Errno){
		"Read":       func(fd int) (int, unix.Errno) { return sockio.Read(fd, b) },
		"Write":      func(fd int) (int, unix.Errno) { return sockio.Write(fd, b) },
		"Send":       func(fd int) (int, unix.Errno) { return sockio.Send(fd, b) },
		"Readv":      func(fd int) (int, unix.Errno) { return sockio.Readv(fd, nil) },
		"Writev":     func(fd int) (int, unix.Errno) { return sockio.Writev(fd, nil) },
		"Splice":     func(fd int) (int, unix.Errno) { return sockio.Splice(fd, fd, 1) },
		"ReceiveAll": func(fd int) (int, unix.Errno) { return sockio.ReceiveAll(fd, make([]sockio.Message, 1), 0) },
		"SendAll":    func(fd int) (int, unix.Errno) { return sockio.SendAll(fd, make([]sockio.Message, 1)) },
		"SendTo":     func(fd int) (int, unix.Errno) { return 0, sockio.SendTo(fd, b, nil, &sockio.Addr{}) },
		"Connect":    func(fd int) (int, unix.Errno) { return 0, sockio.Connect(fd, netip.MustParseAddrPort("127.0.0.1:1")) },
	}
	for name, call := range calls {
		if n, errno := call(-1); n != 0 || errno != unix.EBADF {
			t.Errorf("%s: %d, %v, want 0 and EBADF", name, n, errno)
		}
	}
	if sockio.LocalAddr(-1).IsValid() || sockio.Unread(-1) != 0 {
		t.Error("no descriptor has an address, or bytes")
	}
}

// TestNothingIsAllocated: the calls are made for each packet.
func TestNothingIsAllocated(t *testing.T) {
	client, server := connect(t, "127.0.0.1:0")
	receiver := socket(t, unix.SOCK_DGRAM, "127.0.0.1:0")
	at := sockio.LocalAddr(receiver)
	b, control := make([]byte, 64), make([]byte, 0, sockio.ControlSize)
	msgs := make([]sockio.Message, 1)
	var from sockio.Addr
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msgs[0].SetData(&iov, 1)
	allocs := testing.AllocsPerRun(100, func() {
		_, _ = sockio.Send(client, b)
		_, _ = sockio.Read(server, b)
		sockio.SetInt(client, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		to := sockio.AddrOf(at)
		_ = sockio.SendTo(client, b, sockio.AppendSegment(control[:0], 8), &to)
		_ = sockio.SendTo(receiver, b, nil, &to)
		msgs[0].SetRoom(&from, control[:cap(control)])
		_, _ = sockio.ReceiveAll(receiver, msgs, 0)
		_ = sockio.ParseInfo(msgs[0].Received(&from, control[:cap(control)]))
		_ = from.AddrPort()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestCloseAll(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	sockio.CloseAll(nil)
	sockio.CloseAll(fds[:])
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
}

func TestProgram(t *testing.T) {
	program, err := sockio.Program([]bpf.Instruction{bpf.RetConstant{Val: 7}})
	if err != nil || program.Len != 1 || program.Filter.K != 7 {
		t.Errorf("got %+v, %v", program, err)
	}
	if _, err := sockio.Program([]bpf.Instruction{bpf.LoadConstant{Dst: 9}}); err == nil || !strings.Contains(err.Error(), "BPF") {
		t.Errorf("an instruction that does not exist: %v", err)
	}
}
