package bypass

import (
	"context"
	"os"
	"strconv"
	"strings"

	"rootlesskit/internal/driver/bypass/containers"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// What the child does. It is root in the namespaces of the containers, so it can enter
// them.

// Handlers are the methods that the child answers.
func Handlers(_ context.Context, own *netns.Namespace) wire.Handlers {
	handlers := containers.Handlers(own)
	lookMethod.Handle(handlers, func(_ context.Context, req lookRequest) (reply looked, fds []int, err error) {
		err = own.Of(req.PID, func(ns *netns.Namespace) error { return ns.Do(reply.read) })
		return reply, nil, err
	})
	return handlers
}

const lookMethod wire.Method[lookRequest, looked] = "bypass.look"

// lookRequest names a network namespace by a process, as the child sees it; 0 is
// the child's own.
type lookRequest struct {
	PID int `json:"pid,omitempty"`
}

// looked is what the driver has to know of a network namespace.
type looked struct {
	// UnprivilegedPortStart is the sysctl net.ipv4.ip_unprivileged_port_start.
	UnprivilegedPortStart int `json:"unprivilegedPortStart"`
}

// look asks the child about the network namespace of a process.
func look(ctx context.Context, child wire.Caller, pid int) (looked, error) {
	reply, _, err := lookMethod.Call(ctx, child, lookRequest{PID: pid})
	return reply, err
}

// read reads the namespace that the thread is in.
func (l *looked) read() error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return err
	}
	l.UnprivilegedPortStart, err = strconv.Atoi(strings.TrimSpace(string(b)))
	return err
}
