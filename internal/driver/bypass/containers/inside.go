package containers

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// What the child does. It is root in the namespaces of the containers, so it can enter
// them.

const addressesMethod wire.Method[addressesRequest, []address] = "bypass.addresses"

// addressesRequest names a network namespace by a process, as the child sees it; 0
// is the child's own.
type addressesRequest struct {
	PID int `json:"pid,omitempty"`
}

// address is an address of an interface, with the prefix of its network.
type address struct {
	Prefix netip.Prefix `json:"prefix"`
	Link   string       `json:"link"`
}

// Handlers are the methods that the child answers.
func Handlers(own *netns.Namespace) wire.Handlers {
	all := wire.Handlers{}
	addressesMethod.Handle(all, func(_ context.Context, req addressesRequest) (found []address, fds []int, err error) {
		err = own.Of(req.PID, func(ns *netns.Namespace) error {
			return ns.Do(func() (err error) {
				found, err = addresses()
				return err
			})
		})
		return found, nil, err
	})
	return all
}

// addressesOf asks the child for the addresses of a namespace that are neither
// loopback nor link-local, IPv4 first.
func addressesOf(ctx context.Context, child wire.Caller, pid int) (found []address, err error) {
	found, _, err = addressesMethod.Call(ctx, child, addressesRequest{PID: pid})
	return found, err
}

// maxAddresses bounds the answer: a container may have as many as it likes.
const maxAddresses = 256

// addresses reads the addresses of the namespace that the thread is in.
func addresses() ([]address, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var found []address
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if ip := prefix.Addr(); err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				found = append(found, address{prefix, link.Name})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b address) int {
		return cmp.Compare(a.Prefix.Addr().BitLen(), b.Prefix.Addr().BitLen())
	})
	return found[:min(len(found), maxAddresses)], nil
}
