package helper

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"rootlesskit/internal/driver"
	"rootlesskit/internal/netns"
)

// Plan assigns the addresses as slirp4netns(1) does: in --cidr (10.0.2.0/24), .2
// is the gateway, which represents the host, .3 the name server and .100 the
// child. IPv6 has the same in fd00::/64, which slirp4netns cannot change.
type Plan struct {
	Child4, Child6     netip.Prefix // Child6 is invalid without IPv6
	Gateway4, Gateway6 netip.Addr
	DNS4, DNS6         netip.Addr
}

// NewPlan lays out the addresses for a validated configuration.
func NewPlan(cfg driver.NetworkConfig) Plan {
	host := func(n byte) netip.Addr {
		a := cfg.CIDR.Masked().Addr().As4()
		a[3] |= n
		return netip.AddrFrom4(a)
	}
	p := Plan{
		Child4:   netip.PrefixFrom(host(100), cfg.CIDR.Bits()),
		Gateway4: host(2),
		DNS4:     host(3),
	}
	if cfg.IPv6 {
		p.Child6 = netip.MustParsePrefix("fd00::100/64")
		p.Gateway6 = netip.MustParseAddr("fd00::2")
		p.DNS6 = netip.MustParseAddr("fd00::3")
	}
	return p
}

// Device is the interface in the namespace that a program serves. It outlives
// the program: addresses, routes and everything else that depends on the
// interface stay when the program dies, and the next one uses them.
type Device struct {
	Name string
	MTU  int
	Plan Plan
	// PeerMAC is the address of the program's end. The namespace knows the gateway and
	// the name server by it without asking: a program that gets no CPU for three
	// seconds would be taken for a network that cannot be reached (EHOSTUNREACH).
	PeerMAC net.HardwareAddr
}

// Make makes the device, without configuring it.
func (d Device) Make(ctx context.Context, sb driver.Sandbox) error {
	return netns.MakeTAP(ctx, sb.Child, d.Name)
}

// Configure sets the addresses and routes of the device, which a program
// already serves.
func (d Device) Configure(ctx context.Context, sb driver.Sandbox) error {
	req := netns.LinkRequest{
		Name: d.Name, MTU: d.MTU,
		Addrs: []netip.Prefix{d.Plan.Child4}, Gateways: []netip.Addr{d.Plan.Gateway4},
		PeerMAC: d.PeerMAC,
	}
	if d.Plan.Child6.IsValid() {
		req.Addrs = append(req.Addrs, d.Plan.Child6)
		req.Gateways = append(req.Gateways, d.Plan.Gateway6)
	}
	req.Neighbours = append(d.Plan.DNS(), req.Gateways...)
	return netns.Configure(ctx, sb.Child, req)
}

// Link describes the device to the launcher.
func (d Device) Link(dns ...netip.Addr) driver.Link {
	return driver.Link{Ifname: d.Name, MTU: d.MTU, IPv4: d.Plan.Child4, IPv6: d.Plan.Child6, DNS: dns}
}

// PrivateDir makes a directory in the state directory for the sockets of the run's
// program, which creates them with the mode that the umask allows. Name them
// SocketName: the path is then as long as that of api.sock, so a state directory
// is short enough for both or for neither (108 bytes, unix(7)).
func PrivateDir(sb driver.Sandbox) (string, error) {
	dir := filepath.Join(sb.StateDir, ".net")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the directory for the helper's sockets: %w", err)
	}
	return dir, nil
}

// SocketName is the name of a program's socket in PrivateDir.
const SocketName = "api"

// DNS returns the name servers of the plan's address families.
func (p Plan) DNS() []netip.Addr {
	if p.DNS6.IsValid() {
		return []netip.Addr{p.DNS4, p.DNS6}
	}
	return []netip.Addr{p.DNS4}
}
