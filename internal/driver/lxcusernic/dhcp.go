package lxcusernic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// lease is a lease that a DHCP server has granted (RFC 2131).
type lease struct {
	Addr     netip.Prefix  `json:"addr"`
	Gateways []netip.Addr  `json:"gateways,omitempty"`
	DNS      []netip.Addr  `json:"dns,omitempty"`
	Lifetime time.Duration `json:"lifetime"`
	// Renew and Rebind are T1 and T2 of section 4.4.5, which count from the
	// answer, like Lifetime: from T1 on, the client tries to renew.
	Renew  time.Duration `json:"renew"`
	Rebind time.Duration `json:"rebind"`
	// Offer and ACK are the server's messages to which a renewal refers.
	Offer []byte `json:"offer,omitempty"`
	ACK   []byte `json:"ack,omitempty"`
}

const (
	askMethod  wire.Method[askRequest, askReply]   = "lxcusernic.ask"
	dropMethod wire.Method[dropRequest, wire.None] = "lxcusernic.drop"
)

// errRefused says that the server wants the address back.
var errRefused = errors.New("the DHCP server refuses to renew the lease")

type askRequest struct {
	Ifname string `json:"ifname"`
	// Renew is the lease to renew; without Offer, a new lease is requested.
	Renew lease `json:"renew"`
}

type askReply struct {
	Lease   lease `json:"lease"`
	Refused bool  `json:"refused,omitempty"`
}

// ask gets or renews a lease.
func (n *Network) ask(ctx context.Context, renew lease) (lease, error) {
	reply, _, err := askMethod.Call(ctx, n.sb.Child, askRequest{n.cfg.Ifname, renew})
	if err == nil && reply.Refused {
		err = errRefused
	}
	return reply.Lease, err
}

// Each message is sent again after answerTimeout, tries times.
const (
	answerTimeout = 2 * time.Second
	tries         = 4
)

// ask runs in the child. The client's socket receives everything that arrives
// on the interface, so it is only open during the exchange.
func (h handlers) ask(ctx context.Context, req askRequest) (reply askReply, fds []int, err error) {
	var client *nclient4.Client
	err = h.netns.Do(func() (err error) {
		client, err = nclient4.New(req.Ifname, nclient4.WithTimeout(answerTimeout), nclient4.WithRetry(tries))
		return err
	})
	if err != nil {
		return reply, nil, fmt.Errorf("a DHCP client on %q: %w", req.Ifname, err)
	}
	defer client.Close()
	granted, err := exchange(ctx, client, req.Renew)
	var nak *nclient4.ErrNak
	if errors.As(err, &nak) {
		return askReply{Refused: true}, nil, nil
	}
	if err != nil {
		return reply, nil, err
	}
	l, err := newLease(granted)
	return askReply{Lease: l}, nil, err
}

func exchange(ctx context.Context, client *nclient4.Client, renew lease) (*nclient4.Lease, error) {
	if len(renew.Offer) == 0 {
		return client.Request(ctx)
	}
	offer, err := dhcpv4.FromBytes(renew.Offer)
	if err != nil {
		return nil, fmt.Errorf("the offer to renew: %w", err)
	}
	ack, err := dhcpv4.FromBytes(renew.ACK)
	if err != nil {
		return nil, fmt.Errorf("the acknowledgement to renew: %w", err)
	}
	return client.Renew(ctx, &nclient4.Lease{Offer: offer, ACK: ack})
}

// shortestLease keeps a faulty server from keeping the client busy.
const shortestLease = 2 * time.Second

// newLease parses a server's answer; the defaults are those of RFC 2131,
// section 4.4.5.
func newLease(granted *nclient4.Lease) (lease, error) {
	ack := granted.ACK
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return lease{}, fmt.Errorf("the DHCP server gave an unusable address: %v", ack.YourIPAddr)
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = net.IP(addr.AsSlice()).DefaultMask()
	}
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		return lease{}, fmt.Errorf("the DHCP server gave %s the mask %s", addr, mask)
	}
	l := lease{
		Addr: netip.PrefixFrom(addr, bits), Gateways: addrs(ack.Router()), DNS: addrs(ack.DNS()),
		Lifetime: max(ack.IPAddressLeaseTime(time.Hour), shortestLease),
		ACK:      ack.ToBytes(),
	}
	if granted.Offer != nil {
		l.Offer = granted.Offer.ToBytes()
	}
	l.Gateways = l.Gateways[:min(len(l.Gateways), 1)] // in order of preference
	l.Renew = within(ack.IPAddressRenewalTime(0), l.Lifetime, l.Lifetime/2)
	l.Rebind = within(ack.IPAddressRebindingTime(0), l.Lifetime, l.Lifetime*7/8)
	return l, nil
}

// within returns d, or other if d is not within the lifetime.
func within(d, lifetime, other time.Duration) time.Duration {
	if d < shortestLease/2 || d >= lifetime {
		return other
	}
	return d
}

func addrs(ips []net.IP) []netip.Addr {
	var found []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
			found = append(found, a)
		}
	}
	return found
}

type dropRequest struct {
	Ifname string       `json:"ifname"`
	Addr   netip.Prefix `json:"addr"`
}

// apply configures the interface according to the lease.
func (n *Network) apply(ctx context.Context, l lease) error {
	n.mu.Lock()
	old := n.lease
	n.mu.Unlock()
	if old.Addr.IsValid() && old.Addr != l.Addr {
		if err := n.drop(ctx, old.Addr); err != nil {
			return err
		}
	}
	req := netns.LinkRequest{Name: n.cfg.Ifname, Addrs: []netip.Prefix{l.Addr}, Gateways: l.Gateways}
	if err := netns.Configure(ctx, n.sb.Child, req); err != nil {
		return err
	}
	n.mu.Lock()
	n.lease = l
	n.mu.Unlock()
	return nil
}

func (n *Network) drop(ctx context.Context, addr netip.Prefix) error {
	if _, _, err := dropMethod.Call(ctx, n.sb.Child, dropRequest{n.cfg.Ifname, addr}); err != nil {
		return fmt.Errorf("removing the address %s: %w", addr, err)
	}
	return nil
}

// drop runs in the child. It removes the address with its routes.
func (h handlers) drop(_ context.Context, req dropRequest) (none wire.None, fds []int, err error) {
	return none, nil, h.netns.Do(func() error { return dropAddr(req) })
}

func dropAddr(req dropRequest) error {
	link, err := netlink.LinkByName(req.Ifname)
	if err != nil {
		return fmt.Errorf("interface %q: %w", req.Ifname, err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing the routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw == nil {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the route through %s: %w", r.Gw, err)
		}
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: req.Addr.Addr().AsSlice(), Mask: net.CIDRMask(req.Addr.Bits(), 32)}}
	if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}
