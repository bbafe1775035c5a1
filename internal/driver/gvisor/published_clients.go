package gvisor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rootlesskit/internal/netns"
	"rootlesskit/internal/wire"
)

// clientSources chooses the sources that the namespace sees of the clients of
// published ports. It knows the networks inside: a server would answer to its own
// neighbour, a container for example, where a client has such an address.
type clientSources struct {
	ctx    context.Context
	policy *policy
	child  wire.Caller
	ifname string

	mu    sync.Mutex
	inner []netip.Prefix
	asked time.Time
}

// How long the networks are taken to be as they were, and how long the child may take
// to tell them.
const (
	innerTTL     = time.Second
	innerTimeout = time.Second
)

// source is the policy's inboundSource for a new client.
func (c *clientSources) source(client netip.Addr, is6 bool) netip.Addr {
	source := c.policy.inboundSource(client, is6)
	if source == c.policy.plan.gateway(is6) {
		return source
	}
	if slices.ContainsFunc(c.networks(), func(n netip.Prefix) bool { return n.Contains(source) }) {
		return c.policy.plan.gateway(is6)
	}
	return source
}

// networks are those inside. Where the child does not tell, they are those that it
// told last.
func (c *clientSources) networks() []netip.Prefix {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) > innerTTL {
		ctx, cancel := context.WithTimeout(c.ctx, innerTimeout)
		defer cancel()
		if nets, err := netns.Neighbours(ctx, c.child, c.ifname); err == nil {
			c.inner = nets
		}
		c.asked = time.Now()
	}
	return c.inner
}
