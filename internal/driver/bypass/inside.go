package bypass

import (
	"context"
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
	return wire.Handlers{lookMethod: func(_ context.Context, msg wire.Message) (any, []int, error) {
		var req lookRequest
		if err := msg.Decode(&req); err != nil {
			return nil, nil, err
		}
		var reply looked
		err := own.Of(req.PID, func(ns *netns.Namespace) error { return ns.Do(reply.read) })
		return reply, nil, err
	}}
}

const lookMethod = "bypass.look"

// lookRequest names a network namespace by a process, as the child sees it; 0 is
// the child's own.
type lookRequest struct {
	PID int `json:"pid,omitempty"`
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
	_, err := child.Call(ctx, lookMethod, lookRequest{PID: pid}, &reply)
	return reply, err
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
