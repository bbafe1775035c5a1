package bypass

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// What the child does: it is root of the namespaces of the containers in it, and
// can enter them.

// Handlers are the methods that the child answers.
func Handlers(own *netns.Namespace) wire.Handlers {
	h := handlers{own}
	return wire.Handlers{lookMethod: h.look, socketsMethod: h.sockets}
}

const (
	lookMethod    = "bypass.look"
	socketsMethod = "bypass.sockets"
)

// insideRequest names a network namespace by a process, as the child sees it; 0
// is the child's own.
type insideRequest struct {
	PID     int                 `json:"pid,omitempty"`
	Sockets netns.SocketRequest `json:"sockets"`
}

// looked is what is to be known of a network namespace.
type looked struct {
	// UnprivilegedPortStart is the sysctl net.ipv4.ip_unprivileged_port_start.
	UnprivilegedPortStart int `json:"unprivilegedPortStart"`
	// Addrs are the addresses that are not loopback, IPv4 first.
	Addrs []netip.Addr `json:"addrs,omitempty"`
}

// look asks the child.
func look(ctx context.Context, child wire.Caller, pid int) (looked, error) {
	var reply looked
	_, err := child.Call(ctx, lookMethod, insideRequest{PID: pid}, &reply)
	return reply, err
}

// socketsOf is netns.Sockets for the namespace of a process.
func socketsOf(ctx context.Context, child wire.Caller, pid int, req netns.SocketRequest) ([]int, error) {
	fds, err := child.Call(ctx, socketsMethod, insideRequest{PID: pid, Sockets: req}, nil)
	if err != nil {
		return nil, fmt.Errorf("making sockets in the network namespace of PID %d: %w", pid, err)
	}
	return fds, nil
}

type handlers struct{ own *netns.Namespace }

// enter runs f with the namespace of a request.
func (h handlers) enter(msg wire.Message, f func(*netns.Namespace, insideRequest) error) error {
	var req insideRequest
	if err := msg.Decode(&req); err != nil {
		return err
	}
	if req.PID == 0 {
		return f(h.own, req)
	}
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", req.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	return f(ns, req)
}

func (h handlers) look(_ context.Context, msg wire.Message) (any, []int, error) {
	var reply looked
	err := h.enter(msg, func(ns *netns.Namespace, _ insideRequest) error {
		return ns.Do(reply.read)
	})
	return reply, nil, err
}

// read reads the namespace that the thread is in.
func (l *looked) read() error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return err
	}
	if l.UnprivilegedPortStart, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	var v6 []netip.Addr
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		ip := prefix.Addr()
		switch {
		case err != nil, ip.IsLoopback(), ip.IsLinkLocalUnicast():
		case ip.Is4():
			l.Addrs = append(l.Addrs, ip)
		default:
			v6 = append(v6, ip)
		}
	}
	l.Addrs = append(l.Addrs, v6...)
	return nil
}

func (h handlers) sockets(_ context.Context, msg wire.Message) (_ any, fds []int, err error) {
	err = h.enter(msg, func(ns *netns.Namespace, req insideRequest) error {
		fds, err = ns.NewSockets(req.Sockets)
		return err
	})
	return nil, fds, err
}
