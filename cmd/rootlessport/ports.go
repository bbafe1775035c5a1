package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"rootlesskit/api"
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
	if err := forwardAll(ports, specs); err != nil {
		ports.Close()
		return nil, privileged(err)
	}
	return ports, nil
}

// concurrency is how many ports are opened at a time. Each waits for event loops to
// wake up, so that a thousand, one after another, would take half a second.
const concurrency = 32

// forwardAll opens ports, and returns the error of the first that cannot be opened.
func forwardAll(ports *publish.Ports, specs []api.PortSpec) error {
	errs := make([]error, len(specs))
	var opening errgroup.Group
	opening.SetLimit(concurrency)
	for i, spec := range specs {
		opening.Go(func() error {
			_, errs[i] = ports.Forward(spec)
			return errs[i]
		})
	}
	if opening.Wait() == nil {
		return nil
	}
	return errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
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
