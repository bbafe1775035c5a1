package pasta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/api"
	"rootlesskit/internal/driver"
	"rootlesskit/internal/driver/helper"
	"rootlesskit/internal/driver/relayed"
	"rootlesskit/internal/netns"
)

// Ports is the port driver of --port-driver=pesto. pesto makes pasta change its
// rules, and succeeds once pasta has them. It does not report whether pasta
// could bind the port, so the driver checks the kernel's list of sockets until
// the port is open, or closed.
//
// pesto cannot choose the address of the namespace that a port leads to: it is
// the namespace's own. With --ipv6, the relay serves ports whose child address is
// on loopback: dockerd asks for both families then, and would otherwise have only
// one address for them, where its userland proxies can listen only once.
type Ports struct {
	*helper.Forwards
	network *Network
	binary  *helper.Binary
	relay   *relayed.Ports
}

func newPorts(n *Network, flags driver.Flags) (*Ports, error) {
	binary, err := helper.Probe(flags.String(pestoFlag))
	if err != nil {
		return nil, err
	}
	if !n.binary.Has("--conf-path") {
		return nil, errors.New("port driver \"pesto\" requires pasta with --conf-path support (passt >= 2026_05_07.1afd4ed)")
	}
	if lacks := binary.Lacks("--add", "--delete", "--tcp-ports", "--udp-ports"); lacks != "" {
		return nil, fmt.Errorf("%s has no %s: it is not a pesto that can publish ports", binary.Path, lacks)
	}
	if err := relayed.CheckFlags(flags); err != nil {
		return nil, err
	}
	p := &Ports{network: n, binary: binary, relay: relayed.New(Pesto, flags)}
	p.Forwards = helper.NewForwards(p)
	return p, nil
}

// Start implements driver.Ports.
func (p *Ports) Start(ctx context.Context, sb driver.Sandbox, link driver.Link) error {
	if err := p.relay.Start(ctx, sb, link); err != nil {
		return err
	}
	return p.Forwards.Start(ctx, p.network.program)
}

// Wait implements driver.Ports.
func (p *Ports) Wait() error { return errors.Join(p.Forwards.Wait(), p.relay.Wait()) }

// Forward implements driver.Ports.
func (p *Ports) Forward(ctx context.Context, spec api.PortSpec) (io.Closer, error) {
	if addr, err := netip.ParseAddr(spec.ChildIP); err == nil && addr.Unmap().IsLoopback() && p.network.cfg.IPv6 {
		return p.relay.Forward(ctx, spec)
	}
	return p.Forwards.Forward(ctx, spec)
}

// Info implements driver.Ports.
func (p *Ports) Info() api.PortDriverInfo {
	info := api.PortDriverInfo{
		Driver:                  Pesto,
		Protos:                  []api.Proto{"tcp", "tcp4", "udp", "udp4"},
		DisallowLoopbackChildIP: !p.network.cfg.IPv6,
	}
	if p.network.cfg.IPv6 {
		info.Protos = append(info.Protos, "tcp6", "udp6")
	}
	return info
}

// Check implements helper.Forwarder.
func (p *Ports) Check(spec api.PortSpec, _ []api.PortSpec) error {
	if addr, err := netip.ParseAddr(spec.ParentIP); err == nil && !addr.Unmap().Is4() && !p.network.cfg.IPv6 && spec.Proto.Family() != 4 {
		return fmt.Errorf("publishing on %s needs --ipv6", addr)
	}
	addr, err := netip.ParseAddr(spec.ChildIP)
	addr = addr.Unmap()
	own := []netip.Addr{p.network.plan.Child4.Addr(), p.network.plan.Child6.Addr()}
	switch {
	case err != nil, addr.IsUnspecified(), slices.Contains(own, addr):
		return nil
	case addr.IsLoopback():
		return fmt.Errorf("child IP %s: the port driver pesto cannot reach loopback addresses of the namespace without --ipv6; leave it out, or use --net=slirp4netns --port-driver=builtin", addr)
	}
	return fmt.Errorf("child IP %s: the port driver pesto can only forward to the namespace's own address %s", addr, own[0])
}

// listener is a listening socket of a port on the host.
type listener struct {
	proto int // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	addrs []netip.Addr
	port  uint16
	rule  string // the rule, as pesto takes it
}

func (p *Ports) listener(spec api.PortSpec) listener {
	l := listener{proto: unix.IPPROTO_TCP, port: uint16(spec.ParentPort)}
	option := "--tcp-ports="
	if spec.Proto.Transport() == api.UDP {
		l.proto, option = unix.IPPROTO_UDP, "--udp-ports="
	}
	ports := fmt.Sprintf("%d:%d", spec.ParentPort, spec.ChildPort)
	l.addrs = p.addrs(spec)
	if len(l.addrs) == 1 {
		ports = l.addrs[0].String() + "/" + ports
	}
	l.rule = option + ports
	return l
}

// addrs returns the addresses that a port listens on, with IPv6 only if the network has
// it. :: means only IPv6.
func (p *Ports) addrs(spec api.PortSpec) []netip.Addr {
	addr, err := netip.ParseAddr(spec.ParentIP)
	addr = addr.Unmap()
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	switch {
	case err == nil && !addr.IsUnspecified():
		return []netip.Addr{addr}
	case spec.Proto.Family() == 6:
		return []netip.Addr{v6}
	case spec.Proto.Family() == 4:
		return []netip.Addr{v4}
	case addr == v6:
		return []netip.Addr{v6}
	case !p.network.cfg.IPv6:
		return []netip.Addr{v4}
	}
	return []netip.Addr{v4, v6}
}

// Add implements helper.Forwarder.
func (p *Ports) Add(ctx context.Context, spec api.PortSpec) (func(context.Context) error, error) {
	l := p.listener(spec)
	if err := p.run(ctx, "--add", l); err != nil {
		return nil, err
	}
	remove := func(ctx context.Context) error {
		if err := p.run(ctx, "--delete", l); err != nil {
			return err
		}
		return l.await(ctx, false)
	}
	if err := l.await(ctx, true); err != nil {
		err = fmt.Errorf("%w (%s)", err, p.network.binary.Version())
		// A rule that pasta cannot follow keeps it from following later ones.
		return nil, errors.Join(err, remove(context.WithoutCancel(ctx)))
	}
	return remove, nil
}

func (p *Ports) run(ctx context.Context, action string, l listener) error {
	args := []string{action, l.rule, p.network.confSocket()}
	cmd := exec.CommandContext(ctx, p.binary.Path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("pesto %s: %w: %s (%s)", strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "), p.network.binary.Version())
	}
	return nil
}

// pastaPatience bounds how long pasta takes to follow its rules, on a busy machine.
const pastaPatience = 20 * time.Second

// await waits until the port is open, or closed.
func (l listener) await(ctx context.Context, open bool) error {
	for deadline := time.Now().Add(pastaPatience); ; time.Sleep(time.Millisecond) {
		isOpen, err := l.isOpen()
		if err != nil || isOpen == open {
			return err
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
	}
	state := "open"
	if !open {
		state = "close"
	}
	return fmt.Errorf("pasta accepted the rule for port %d but does not %s the port; --debug shows its messages", l.port, state)
}

// isOpen returns true if any of the addresses is open, since the host may lack a family.
func (l listener) isOpen() (bool, error) {
	found, err := netns.Listeners(l.proto, l.port)
	if err != nil {
		return false, err
	}
	for _, addr := range l.addrs {
		if slices.Contains(found, addr) {
			return true, nil
		}
	}
	return false, nil
}
