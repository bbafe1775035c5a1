package netns

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
	"rootlesskit/internal/wire"
)

// SocketRequest asks for sockets in the child's network namespace.
type SocketRequest struct {
	Family int `json:"family"` // unix.AF_INET or unix.AF_INET6
	Type   int `json:"type"`   // unix.SOCK_STREAM or unix.SOCK_DGRAM
	Count  int `json:"count"`  // 1 to wire.MaxFDs
	// Transparent sets IP_TRANSPARENT (IPV6_TRANSPARENT), so that the socket can
	// be bound to a foreign address. Only the child has the capability for it.
	Transparent bool `json:"transparent,omitempty"`
	// PID names another network namespace by a process in it, as the child sees
	// it; 0 is the child's.
	PID int `json:"pid,omitempty"`
}

const socketsMethod wire.Method[SocketRequest, wire.None] = "netns.sockets"

// Sockets returns unbound, nonblocking sockets made inside the namespace. A
// socket belongs to the namespace in which it was made, so the parent binds and
// connects the sockets itself. TCP sockets have SO_REUSEADDR. UDP sockets do
// not: the kernel would give several of them the same port, and deliver answers
// for one to another.
func Sockets(ctx context.Context, child wire.Caller, req SocketRequest) ([]int, error) {
	_, fds, err := socketsMethod.Call(ctx, child, req)
	if err != nil {
		return nil, fmt.Errorf("making %d sockets in the namespace: %w", req.Count, err)
	}
	if len(fds) != req.Count {
		sockio.CloseAll(fds)
		return nil, fmt.Errorf("asked for %d sockets, got %d", req.Count, len(fds))
	}
	for _, fd := range fds {
		if err := req.verify(fd); err != nil {
			sockio.CloseAll(fds)
			return nil, fmt.Errorf("asked for %d sockets in the namespace, got %w", req.Count, err)
		}
	}
	return fds, nil
}

func (n *Namespace) sockets(_ context.Context, req SocketRequest) (none wire.None, fds []int, err error) {
	err = n.Of(req.PID, func(ns *Namespace) (err error) {
		fds, err = ns.NewSockets(req)
		return err
	})
	return none, fds, err
}

// NewSockets makes sockets inside the namespace, see Sockets.
func (n *Namespace) NewSockets(req SocketRequest) ([]int, error) {
	if req.Count < 1 || req.Count > wire.MaxFDs {
		return nil, fmt.Errorf("socket count %d is not in 1-%d", req.Count, wire.MaxFDs)
	}
	fds := make([]int, 0, req.Count)
	err := n.Do(func() error {
		for range req.Count {
			fd, err := newSocket(req)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		return nil
	})
	if err != nil {
		sockio.CloseAll(fds)
		return nil, err
	}
	return fds, nil
}

func newSocket(req SocketRequest) (int, error) {
	fd, err := unix.Socket(req.Family, req.Type|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if req.Type == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil && req.Transparent {
		err = setTransparent(fd, req.Family)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setTransparent(fd, family int) error {
	level, opt := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, opt = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
		return fmt.Errorf("IP_TRANSPARENT: %w", err)
	}
	return nil
}
