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

// translated reports whether the calling thread's namespace has NAT: NAT chains
// of nf_tables, or the table of the older iptables. RootlessKit makes neither.
func translated() bool {
	chains, err := natChains()
	return err == nil && len(chains) > 0 || legacyNAT("ip_tables_names") || legacyNAT("ip6_tables_names")
}

func natChains() ([]*nftables.Chain, error) {
	chains, err := withNFT(func(c *nftables.Conn) ([]*nftables.Chain, error) { return c.ListChains() })
	return slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Type != nftables.ChainTypeNAT }), err
}

// legacyNAT looks for the table nat in a file of /proc that lists the tables of the
// older iptables once they are used. The file may not be readable: it belongs to
// the root of the namespace at the time when the namespace was made.
func legacyNAT(file string) bool {
	names, _ := os.ReadFile("/proc/thread-self/net/" + file) // empty on a kernel without
	return slices.Contains(strings.Fields(string(names)), "nat")
}

// natTakes reports whether a rule of the nf_tables tables with NAT names an address.
// It ignores those of the older iptables, whose rules for addresses that are not
// local are made by hand.
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

// ruleNames reports whether a rule compares something with an address.
func ruleNames(r *nftables.Rule, ip []byte) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		cmp, ok := e.(*expr.Cmp)
		return ok && cmp.Op == expr.CmpOpEq && bytes.Equal(cmp.Data, ip)
	})
}

// conntracked reports whether conntrack is in use in the calling thread's namespace,
// which does not have the marks yet: then there may be NAT, even some that translated
// cannot see, and marks add no cost. It checks whether a datagram leaves an entry.
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
