package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
	"rootlesskit/internal/wire"
	"time"
)

// TAPRequest asks for a TAP device in the namespace.
type TAPRequest struct {
	Name string `json:"name"`
	// VnetHdr puts a 10-byte virtio-net header before each frame (IFF_VNET_HDR);
	// Offloads are the TUN_F_* bits that the reader can handle (TUNSETOFFLOAD).
	// The call fails if the kernel does not know a bit: try again with fewer.
	VnetHdr  bool `json:"vnetHdr,omitempty"`
	Offloads uint `json:"offloads,omitempty"`
	// Persist keeps the device for whoever opens it next: see MakeTAP.
	Persist bool `json:"persist,omitempty"`
}

// LinkRequest configures an interface of the namespace and brings it up.
type LinkRequest struct {
	Name     string           `json:"name"`
	MTU      int              `json:"mtu,omitempty"`
	MAC      net.HardwareAddr `json:"mac,omitempty"`
	Addrs    []netip.Prefix   `json:"addrs,omitempty"`
	Gateways []netip.Addr     `json:"gateways,omitempty"` // default routes
	// Congestion names the TCP congestion control of the default routes, if the
	// kernel has it; empty: the namespace's default.
	Congestion string `json:"congestion,omitempty"`
	// Neighbours are the addresses of PeerMAC, which nobody has to ask for: the kernel
	// gives a neighbour up (EHOSTUNREACH) if three questions in a row are lost, as they
	// are in a flood.
	Neighbours []netip.Addr     `json:"neighbours,omitempty"`
	PeerMAC    net.HardwareAddr `json:"peerMAC,omitempty"`
}

const (
	tapMethod  wire.Method[TAPRequest, wire.None]  = "netns.tap"
	linkMethod wire.Method[LinkRequest, wire.None] = "netns.link"
)

// OpenTAP makes a TAP device inside the namespace and returns its nonblocking
// descriptor. The device disappears when the descriptor is closed.
func OpenTAP(ctx context.Context, child wire.Caller, req TAPRequest) (int, error) {
	_, fds, err := tapMethod.Call(ctx, child, req)
	if err != nil {
		return -1, fmt.Errorf("making the TAP device %q: %w", req.Name, err)
	}
	if len(fds) != 1 {
		sockio.CloseAll(fds)
		return -1, fmt.Errorf("making the TAP device %q: got %d descriptors", req.Name, len(fds))
	}
	return fds[0], nil
}

// MakeTAP makes a TAP device that lives as long as the namespace, for programs
// that open it there by name (TUNSETPERSIST in the kernel's networking/tuntap).
// No descriptor of the device is open when MakeTAP returns.
func MakeTAP(ctx context.Context, child wire.Caller, name string) error {
	_, fds, err := tapMethod.Call(ctx, child, TAPRequest{Name: name, Persist: true})
	sockio.CloseAll(fds)
	if err != nil {
		return fmt.Errorf("making the TAP device %q: %w", name, err)
	}
	return nil
}

// Configure configures an interface of the namespace.
func Configure(ctx context.Context, child wire.Caller, req LinkRequest) error {
	if _, _, err := linkMethod.Call(ctx, child, req); err != nil {
		return fmt.Errorf("configuring the interface %q: %w", req.Name, err)
	}
	return nil
}

func (n *Namespace) openTAP(_ context.Context, req TAPRequest) (none wire.None, fds []int, err error) {
	fd := -1
	err = n.Do(func() (err error) {
		fd, err = newTAP(req)
		return err
	})
	if err != nil {
		return none, nil, err
	}
	if req.Persist {
		return none, nil, persist(fd)
	}
	return none, []int{fd}, nil
}

// persist makes the device outlive its descriptor, and closes the descriptor.
func persist(fd int) error {
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("TUNSETPERSIST: %w", err)
	}
	return nil
}

func newTAP(req TAPRequest) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("opening /dev/net/tun: %w (is the tun module loaded and the device readable and writable for this user?)", err)
	}
	if err := attachTAP(fd, req); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func attachTAP(fd int, req TAPRequest) error {
	ifr, err := unix.NewIfreq(req.Name)
	if err != nil {
		return fmt.Errorf("interface name %q: %w", req.Name, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if req.VnetHdr {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("TUNSETIFF %q: %w", req.Name, err)
	}
	if req.VnetHdr {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(req.Offloads)); err != nil {
			return fmt.Errorf("TUNSETOFFLOAD %#x: %w", req.Offloads, err)
		}
	}
	lengthenQueue(req.Name)
	return nil
}

// tapQueue is how many frames of the namespace wait for their reader. The kernel's own
// 1,000 are too few for as many connections that send at the same time, and each one
// lost stands still for 200 ms or more. It is not larger since a frame has up to 64 KiB,
// and those that wait count for no socket.
const tapQueue = 2500

// lengthenQueue leaves the queue as it is if the kernel has no memory for more.
func lengthenQueue(name string) {
	if link, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkSetTxQLen(link, tapQueue)
	}
}

func (n *Namespace) configure(_ context.Context, req LinkRequest) (none wire.None, fds []int, err error) {
	return none, nil, n.Do(func() error { return configureLink(req) })
}

func configureLink(req LinkRequest) error {
	link, err := netlink.LinkByName(req.Name)
	if err != nil {
		return fmt.Errorf("interface %q: %w", req.Name, err)
	}
	if req.MTU > 0 {
		if err := netlink.LinkSetMTU(link, req.MTU); err != nil {
			return fmt.Errorf("mtu %d: %w", req.MTU, err)
		}
	}
	if req.MAC != nil {
		if err := netlink.LinkSetHardwareAddr(link, req.MAC); err != nil {
			return fmt.Errorf("mac %s: %w", req.MAC, err)
		}
	}
	refuseAdvertised(req)
	for _, a := range req.Addrs {
		if err := addAddr(link, a); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %q up: %w", req.Name, err)
	}
	for _, a := range req.Addrs {
		if a.Addr().Is6() {
			AwaitLocal(a.Addr())
		}
	}
	for _, ip := range req.Neighbours {
		if err := addNeighbour(link, ip, req.PeerMAC); err != nil {
			return fmt.Errorf("neighbour %s: %w", ip, err)
		}
	}
	for _, gw := range req.Gateways {
		if err := addDefaultRoute(link, gw, req.Congestion); err != nil {
			return fmt.Errorf("default route through %s: %w", gw, err)
		}
	}
	return nil
}

func addNeighbour(link netlink.Link, ip netip.Addr, mac net.HardwareAddr) error {
	family := unix.AF_INET
	if ip.Is6() {
		family = unix.AF_INET6
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac,
	})
}

// addDefaultRoute leaves out a congestion control that the kernel does not know.
func addDefaultRoute(link netlink.Link, gw netip.Addr, congestion string) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice(), Congctl: congestion}
	err := netlink.RouteAdd(route)
	if errors.Is(err, unix.EINVAL) && congestion != "" {
		route.Congctl = ""
		err = netlink.RouteAdd(route)
	}
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// refuseAdvertised prevents an interface with a given IPv6 address from accepting
// another one from a router. It would arrive a moment later, and UDP servers would use
// it as the source of answers to clients of the first address. If /proc/sys cannot be
// written, the interface accepts it.
func refuseAdvertised(req LinkRequest) {
	if slices.ContainsFunc(req.Addrs, func(a netip.Prefix) bool { return a.Addr().Is6() }) {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+req.Name+"/accept_ra", []byte("0"), 0o644)
	}
}

func addAddr(link netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		// No one else has the address: no need to wait for duplicate detection.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return nil
}

// localTimeout is much longer than the kernel's worker needs, even on a busy machine.
const localTimeout = 20 * time.Second

// AwaitLocal waits until packets to a new address of the calling thread's namespace are
// received. For IPv6, the kernel adds the route for that in the background
// (addrconf_dad_work), on a busy machine much later than the address: until then, what is
// sent to the address is lost. It returns false if that takes too long.
func AwaitLocal(ip netip.Addr) bool {
	for deadline := time.Now().Add(localTimeout); !IsLocal(ip); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// IsLocal reports whether an address is local to the calling thread's namespace, by now.
func IsLocal(ip netip.Addr) bool {
	routes, err := netlink.RouteGet(ip.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// LoopbackUp brings lo up.
func (n *Namespace) LoopbackUp() error {
	return n.Do(func() error { return configureLink(LinkRequest{Name: "lo"}) })
}
