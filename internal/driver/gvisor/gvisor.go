package gvisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/netns"
	"rootlesskit/internal/procs"
)

// Name is the name of both drivers on the command line.
const Name = "gvisor-tap-vsock"

// DisableLinkLocalFlag closes link-local addresses, such as 169.254.169.254.
const DisableLinkLocalFlag = "disable-link-local"

// Driver is the drivers' registration.
func Driver() driver.Driver {
	return driver.Driver{
		Name: Name,
		Flags: append([]driver.Flag{
			{Name: "allow-link-local", Kind: driver.Bool, Hidden: true, Usage: "accepted and ignored: link-local addresses are open without --disable-link-local"},
			{Name: DisableLinkLocalFlag, Kind: driver.Bool, Usage: "prohibit connections from inside to link-local addresses (169.254.0.0/16, and fd00:ec2::/32, which serves the same purpose), where clouds serve metadata and the credentials of the machine"},
		}, relayed.Flags()...),
		Network: &driver.NetworkRole{
			MTU: 65520, Ifname: "tap0", CIDR: true, IPv6: true, TUN: true, New: New,
			Auto: driver.Auto{Rank: 1, Why: "embedded, and the fastest outbound"},
		},
		Ports: []driver.PortRole{{Name: Name}},
	}
}

var _ driver.Publisher = (*Network)(nil)

// Network is the network driver.
type Network struct {
	cfg    driver.NetworkConfig
	flags  driver.Flags
	plan   plan
	policy policy
	// The host, as the driver sees it; tests replace these.
	resolvers *resolvers
	socket    socketFunc

	log       *slog.Logger
	loop      *loop
	link      *link
	stack     *stack.Stack
	published *publishedUDP
	datagrams *datagrams

	done chan struct{}
	err  error
}

// New makes the network driver.
func New(cfg driver.NetworkConfig, flags driver.Flags) (driver.Network, error) {
	p, err := newPlan(cfg)
	if err == nil {
		err = relayed.CheckFlags(flags)
	}
	if err != nil {
		return nil, err
	}
	n := &Network{
		cfg:       cfg,
		flags:     flags,
		plan:      p,
		resolvers: &resolvers{path: "/etc/resolv.conf", port: dnsPort},
		socket:    hostSocket,
		done:      make(chan struct{}),
	}
	n.policy = newPolicy(&n.plan, cfg.DisableHostLoopback, flags.Bool(DisableLinkLocalFlag))
	return n, nil
}

// Ports implements driver.Publisher.
func (n *Network) Ports() driver.Ports {
	return &Ports{network: n, relay: relayed.New(Name, n.flags), open: map[io.Closer]struct{}{}, done: make(chan struct{})}
}

// congestionInside is the congestion control of the namespace's connections. The
// link loses nothing, and the host's sockets control the way beyond it: pacing
// packets, as bbr does, would only cost time.
const congestionInside = "reno"

// Attach implements driver.Network.
func (n *Network) Attach(ctx context.Context, sb driver.Sandbox) (driver.Link, error) {
	n.log = sb.Log
	fd, err := openTAP(ctx, sb, n.cfg.Ifname)
	if err != nil {
		return driver.Link{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	if err := n.start(ctx, fd); err != nil {
		cancel()
		return driver.Link{}, err
	}
	go n.run(ctx, cancel)
	err = netns.Configure(ctx, sb.Child, netns.LinkRequest{
		Name: n.cfg.Ifname, MTU: n.cfg.MTU, MAC: n.plan.childMAC,
		Addrs: n.plan.prefixes(), Gateways: n.plan.gateways(), Congestion: congestionInside,
		Neighbours: n.plan.neighbours(), PeerMAC: n.plan.gatewayMAC,
	})
	if err != nil {
		cancel()
		<-n.done
		return driver.Link{}, err
	}
	return n.plan.link(n.cfg), nil
}

// openTAP opens the device with the best offloads that the kernel has.
func openTAP(ctx context.Context, sb driver.Sandbox, ifname string) (fd int, err error) {
	for _, offloads := range offloadSets {
		fd, err = netns.OpenTAP(ctx, sb.Child, netns.TAPRequest{Name: ifname, VnetHdr: true, Offloads: offloads})
		if err == nil {
			return fd, nil
		}
	}
	return -1, err
}

// start makes the parts of the network on a TAP device and joins them.
func (n *Network) start(ctx context.Context, tap int) (err error) {
	if n.link, err = newLink(tap, n.cfg.MTU, n.plan.gatewayMAC, n.plan.childMAC); err != nil {
		return err
	}
	if n.loop, err = newLoop(); err != nil {
		n.link.tap.close()
		return err
	}
	if n.stack, err = newStack(n.link, &n.plan); err != nil {
		n.link.tap.close()
		n.loop.close()
		return err
	}
	frames := &frameWriter{link: n.link, plan: &n.plan}
	n.published = newPublishedUDP(frames, &n.policy)
	outbound := newOutboundTCP(n, frames)
	n.loop.translator = outbound.translate(n.cfg.MTU, n.link)
	n.datagrams = &datagrams{
		plan:      &n.plan,
		published: n.published, translator: n.loop.translator,
		outbound: newOutboundUDP(n.log, &n.plan, &n.policy, frames, n.socket, n.published),
		dns:      newDNSRelay(ctx, n.log, n.socket, n.resolvers, frames),
		pinger:   newPinger(n.log, &n.plan, &n.policy, frames, n.socket),
	}
	n.link.intercept = n.intercept
	n.datagrams.register(n.stack)
	registerTCP(n.stack, n.loop.translator)
	return nil
}

// intercept is link.intercept.
func (n *Network) intercept(b []byte, segment int) bool {
	return n.loop.translator.Packet(b) || n.datagrams.intercept(b, segment)
}

// run serves the link until the context ends or the device is gone, and then
// stops everything.
func (n *Network) run(ctx context.Context, cancel context.CancelFunc) {
	defer close(n.done)
	defer cancel()
	defer procs.Single()()
	var workers, reading sync.WaitGroup
	workers.Go(func() { n.upkeep(ctx) })
	workers.Go(func() {
		<-ctx.Done()
		n.loop.stop()
	})
	reading.Go(func() {
		defer cancel()
		if err := n.link.serve(n.loop.work); err != nil {
			n.err = fmt.Errorf("the embedded network has died: %w", err)
		}
	})
	err := n.loop.run()
	cancel()
	workers.Wait()
	n.disconnect()
	reading.Wait()
	n.loop.close()
	if n.err == nil && err != nil {
		n.err = fmt.Errorf("the embedded network has died: %w", err)
	}
	n.datagrams.close()
	n.published.flows.close()
	stopStack(n.stack)
}

// disconnect cuts all connections, while the link can still notify the namespace, and
// then the link.
func (n *Network) disconnect() {
	n.loop.turn.Lock()
	n.loop.mail.End()
	n.loop.translator.Close()
	n.loop.turn.Unlock()
	n.link.tap.close()
}

// Wait implements driver.Network.
func (n *Network) Wait() error {
	<-n.done
	return n.err
}
