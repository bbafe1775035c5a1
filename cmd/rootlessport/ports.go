package main

import (
	"context"
	"errors"
	"fmt"

	"rootlesskit/internal/hostsock"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/publish"
	"rootlesskit/internal/sourceip"
	"rootlesskit/internal/wire"
)

// publishAll opens all ports, or none.
func publishAll(ctx context.Context, ns *netns.Namespace, cfg *config) (*publish.Ports, error) {
	own, err := cfg.childIP()
	if err != nil {
		return nil, err
	}
	specs, err := cfg.specs()
	if err != nil {
		return nil, err
	}
	handlers := ns.Handlers()
	for name, h := range sourceip.Handlers(ctx, ns) {
		handlers[name] = h
	}
	ports := publish.Open(ctx, wire.Local{Handlers: handlers}, publish.Config{Own: own, Backend: "auto", Log: newLog()})
	for _, spec := range specs {
		if _, err := ports.Forward(spec); err != nil {
			ports.Close()
			return nil, privileged(err)
		}
	}
	return ports, nil
}

// privileged is the error for a privileged port, in the words that Podman's
// documentation uses. A file capability of this program would not help, since it
// only counts in Podman's user namespace.
func privileged(err error) error {
	var refused *hostsock.PrivilegedPortError
	if !errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("cannot expose privileged port %d, you can add 'net.ipv4.ip_unprivileged_port_start=%d' to /etc/sysctl.conf (currently %d), "+
		"or choose a larger port number (>= %d): %w", refused.Port, refused.Port, refused.Start, refused.Start, refused.Err)
}
