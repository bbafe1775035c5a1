package fdswap

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// connect connects to a server of its own, and to none.
func (p *program) connect() error {
	server := p.socket()
	if _, err := p.bind(server); err != nil {
		return err
	}
	for _, port := range []int{serverPort, serverPort + 1} {
		for _, nonblocking := range []bool{false, true} {
			fd := p.socket()
			if err := unix.SetNonblock(fd, nonblocking); err != nil {
				return err
			}
			p.say("port %d, nonblocking %v: %s", port, nonblocking, result(unix.Connect(fd, p.loopback(port))))
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil || (flags&unix.O_NONBLOCK != 0) != nonblocking {
				return fmt.Errorf("the socket has flags %#x (%v)", flags, err)
			}
			unix.Close(fd)
		}
	}
	return nil
}

func result(err error) string {
	switch err {
	case nil:
		return "connected"
	case unix.EINPROGRESS:
		return "in progress"
	}
	return err.Error()
}

// wait connects to a server that is full, for as long as SO_SNDTIMEO.
func (p *program) wait() error {
	server := p.socket()
	if _, err := p.bind(server); err != nil {
		return err
	}
	if err := unix.Listen(server, 0); err != nil {
		return os.NewSyscallError("listen", err)
	}
	for range 3 {
		fd := p.socket()
		_ = unix.SetNonblock(fd, true)
		_ = unix.Connect(fd, p.loopback(serverPort))
	}
	fd := p.socket()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	p.say("waited: %s", result(unix.Connect(fd, p.loopback(serverPort))))
	return nil
}
