package lxcusernic

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// The next attempt comes after half of the remaining time (RFC 2131, section
// 4.4.5), but not before retryMin, since leases here are short, and not after
// retryMax.
const (
	retryMin = time.Second
	retryMax = time.Minute
)

// renew keeps the lease until ctx ends: from T1 on it asks the server to renew
// it. If that fails until the end of the lease, it asks for another address.
func (n *Network) renew(ctx context.Context) {
	granted := time.Now()
	for wait := n.current().Renew; sleep(ctx, wait); {
		l := n.current()
		answer, err := n.ask(ctx, l)
		expired := time.Since(granted) >= l.Lifetime
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			err = n.apply(ctx, answer)
		case errors.Is(err, errRefused), expired:
			err = n.replace(ctx, err)
		}
		if err == nil {
			granted = time.Now()
			wait = n.current().Renew
			continue
		}
		n.sb.Log.Debug("the DHCP lease is not renewed yet", "address", l.Addr, "error", err)
		wait = min(max((l.Lifetime-time.Since(granted))/2, retryMin), retryMax)
	}
}

// replace gives up the address, because its lease has ended, and asks for another.
func (n *Network) replace(ctx context.Context, reason error) error {
	l := n.current()
	if l.Addr.IsValid() {
		n.sb.Log.Warn("giving up the address", "address", l.Addr, "error", reason)
		if err := n.drop(ctx, l.Addr); err != nil {
			return err
		}
		n.mu.Lock()
		n.lease.Addr, n.lease.Offer, n.lease.ACK = netip.Prefix{}, nil, nil
		n.mu.Unlock()
	}
	answer, err := n.ask(ctx, lease{})
	if err != nil {
		return err
	}
	if err := n.apply(ctx, answer); err != nil {
		return err
	}
	n.sb.Log.Warn("the address has changed", "address", answer.Addr, "was", l.Addr)
	return nil
}

func (n *Network) current() lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lease
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
