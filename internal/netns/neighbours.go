package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/wire"
)

const neighboursMethod wire.Method[neighboursRequest, []netip.Prefix] = "netns.neighbours"

// maxNeighbours bounds the networks that a child may report.
const maxNeighbours = 1000

type neighboursRequest struct {
	Uplink string `json:"uplink"` // the interface to the outside
}

// Neighbours returns the networks in which the namespace has neighbours. An address
// in one of them means another host inside than outside.
func Neighbours(ctx context.Context, child wire.Caller, uplink string) ([]netip.Prefix, error) {
	nets, _, err := neighboursMethod.Call(ctx, child, neighboursRequest{uplink})
	if err != nil {
		return nil, fmt.Errorf("looking at the networks in the namespace: %w", err)
	}
	if len(nets) > maxNeighbours {
		return nil, fmt.Errorf("the child names %d networks, more than %d", len(nets), maxNeighbours)
	}
	return nets, nil
}

func (n *Namespace) neighbours(_ context.Context, req neighboursRequest) (all []netip.Prefix, fds []int, err error) {
	err = n.Do(func() error {
		link, err := netlink.LinkByName(req.Uplink)
		if err != nil {
			return fmt.Errorf("interface %q: %w", req.Uplink, err)
		}
		for _, af := range []int{unix.AF_INET, unix.AF_INET6} {
			nets, err := NeighbourNets(af, link.Attrs().Index)
			if err != nil {
				return err
			}
			all = append(all, nets...)
		}
		return nil
	})
	return all, nil, err
}

// NeighbourNets returns the networks in which the calling thread's namespace
// has neighbours: those on the link of the uplink, and all that it reaches
// through other interfaces.
func NeighbourNets(af, uplink int) ([]netip.Prefix, error) {
	routes, err := Undisturbed(func() ([]netlink.Route, error) { return netlink.RouteList(nil, af) }) // the main table
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var nets []netip.Prefix
	for _, r := range routes {
		beyond := r.LinkIndex == uplink && (len(r.Gw) > 0 || r.Via != nil || len(r.MultiPath) > 0)
		if r.Dst == nil || r.Type != unix.RTN_UNICAST || r.LinkIndex == loIndex || beyond {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		if ok && ones > 0 && !(ip.Is6() && ip.IsLinkLocalUnicast()) {
			nets = append(nets, netip.PrefixFrom(ip, ones))
		}
	}
	return nets, nil
}

// loIndex is the index of lo in every network namespace.
const loIndex = 1

// Undisturbed repeats a listing that was interrupted by changes.
func Undisturbed[T any](list func() (T, error)) (all T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
