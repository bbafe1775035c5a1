package sourceip

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// translated tells whether the calling thread's namespace has NAT: chains of
// nf_tables for it, or the table of the older iptables. None is ours.
func translated() bool {
	chains, err := natChains()
	return err == nil && len(chains) > 0 || legacyNAT("ip_tables_names") || legacyNAT("ip6_tables_names")
}

func natChains() ([]*nftables.Chain, error) {
	chains, err := withNFT(func(c *nftables.Conn) ([]*nftables.Chain, error) { return c.ListChains() })
	return slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Type != nftables.ChainTypeNAT }), err
}

// legacyNAT looks for the table nat in a file of /proc that lists those of the
// older iptables, once they are used. It may not be readable: it belongs to who was
// root in the namespace when that was made.
func legacyNAT(file string) bool {
	names, _ := os.ReadFile("/proc/thread-self/net/" + file) // none on a kernel without
	return slices.Contains(strings.Fields(string(names)), "nat")
}

// natTakes tells whether a rule of the tables with NAT names an address. Those of the
// older iptables are not looked at: what they have for addresses that are not local
// is made by hand.
func natTakes(ip netip.Addr) (bool, error) {
	chains, err := natChains()
	if err != nil {
		return false, nil // a kernel without nf_tables
	}
	var tables []*nftables.Table
	for _, c := range chains {
		same := func(t *nftables.Table) bool { return t.Name == c.Table.Name && t.Family == c.Table.Family }
		if !slices.ContainsFunc(tables, same) {
			tables = append(tables, c.Table)
		}
	}
	for _, t := range tables {
		taken, err := withNFT(func(c *nftables.Conn) (bool, error) { return tableNames(c, t, ip) })
		if err != nil || taken {
			return taken, err
		}
	}
	return false, nil
}

func tableNames(c *nftables.Conn, t *nftables.Table, ip netip.Addr) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		if chain.Table.Name != t.Name {
			continue
		}
		rules, err := c.GetRules(t, chain)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return ruleNames(r, ip.AsSlice()) }) {
			return true, nil
		}
	}
	return false, nil
}

// ruleNames tells whether a rule compares something with an address.
func ruleNames(r *nftables.Rule, ip []byte) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		cmp, ok := e.(*expr.Cmp)
		return ok && cmp.Op == expr.CmpOpEq && bytes.Equal(cmp.Data, ip)
	})
}

// conntracked tells whether conntrack is at work in the calling thread's namespace,
// which has no marks of ours: then there may be NAT, also such as translated cannot
// see, and what conntrack costs is paid. It looks whether a datagram leaves an entry.
func conntracked() bool {
	if err := sendToSelf(); err != nil {
		return true // cannot tell
	}
	// /proc/sys/net shows the namespace of the thread that reads it.
	count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, os.ErrNotExist) {
		return false // a kernel without
	}
	return err != nil || strings.TrimSpace(string(count)) != "0"
}

// sendToSelf sends an empty datagram on lo.
func sendToSelf() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.Addr().As4()}); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, nil, 0, self)
}
