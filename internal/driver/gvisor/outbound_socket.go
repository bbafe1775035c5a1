package gvisor

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/eventloop"
	"rootlesskit/internal/sockio"
)

// socketFunc makes a nonblocking socket of the host, like socket(2). Tests
// replace it.
type socketFunc func(family, kind, protocol int) (int, error)

func hostSocket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	return fd, os.NewSyscallError("socket", err)
}

// hostTCP is a TCP socket of the host, in the loop. The servers are those to try if the
// first does not answer, which only name servers have.
type hostTCP struct {
	loop    *loop
	socket  socketFunc
	fd      int
	token   eventloop.Token
	watcher eventloop.Handler
	others  []netip.AddrPort
}

// connect begins to connect.
func (h *hostTCP) connect(to netip.AddrPort) error {
	fd, err := h.socket(sockio.Family(to.Addr()), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	sockio.PrepareTCP(fd)
	sockio.SetInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) // urgent data is part of the stream
	if errno := sockio.Connect(fd, to); errno != 0 && errno != unix.EINPROGRESS {
		unix.Close(fd)
		return errno
	}
	h.fd = fd
	return nil
}

// connectAny connects to the first address for which that can begin.
func (h *hostTCP) connectAny(all []netip.AddrPort) (err error) {
	err = unix.ECONNREFUSED
	for len(all) > 0 && err != nil {
		err = h.connect(all[0])
		all = all[1:]
	}
	h.others = all
	return err
}

// Watch implements translate.Socket.
func (h *hostTCP) Watch(w eventloop.Handler) (err error) {
	h.watcher = w
	h.token, err = h.loop.set.Add(h.fd, unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, h)
	return err
}

// Ready implements eventloop.Handler.
func (h *hostTCP) Ready(events uint32) { h.watcher.Ready(events) }

// Connected implements translate.Socket.
func (h *hostTCP) Connected() unix.Errno {
	errno := connectState(h.fd)
	if errno == 0 || errno == unix.EINPROGRESS || len(h.others) == 0 {
		return errno
	}
	h.Close()
	h.fd = -1
	if h.connectAny(h.others) != nil || h.Watch(h.watcher) != nil {
		return errno
	}
	return unix.EINPROGRESS
}

// connectState returns the result of connect(2). It is robust against spurious wake-ups.
func connectState(fd int) unix.Errno {
	if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		return unix.Errno(code)
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return unix.EINPROGRESS
	}
	return 0
}

// Recv implements translate.Socket.
func (h *hostTCP) Recv(b []byte) (int, unix.Errno) { return sockio.Read(h.fd, b) }

// Send implements translate.Socket.
func (h *hostTCP) Send(b []byte) (int, unix.Errno) { return sockio.Send(h.fd, b) }

// ShutdownWrite implements translate.Socket.
func (h *hostTCP) ShutdownWrite() { sockio.ShutdownWrite(h.fd) }

// Close implements translate.Socket.
func (h *hostTCP) Close() {
	h.loop.set.Forget(h.token)
	sockio.Close(h.fd)
}

// Reset implements translate.Socket.
func (h *hostTCP) Reset() {
	sockio.Reset(h.fd)
	h.Close()
}
