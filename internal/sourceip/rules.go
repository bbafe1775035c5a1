package sourceip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/netns"
)

// The numbers are explained in doc.go.
const (
	markBit     = 0x10000000
	table       = 29291
	uplinkGroup = table
)

// The loopback addresses, with the prefixes of their networks.
var (
	loopback4 = netip.MustParsePrefix("127.0.0.1/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// ruleset returns the routing rules of a family, in their order:
//
//	290: fwmark 0x10000000/0x10000000 lookup 29291
//	291: from 127.0.0.0/8 iif lo lookup main suppress_prefixlength 0 suppress_ifgroup 29291
//	292: from 127.0.0.0/8 iif lo lookup 29291
//
// Rule 291 exempts connections from a loopback address to a network inside the
// namespace, which belong to a user's NAT with route_localnet. The packets that
// remain for rule 292 could not be sent at all otherwise.
func ruleset(af int) []*netlink.Rule {
	loopback := loopback4.Masked()
	if af == unix.AF_INET6 {
		loopback = loopback6
	}
	marked := newRule(af, 290, table)
	mask := uint32(markBit)
	marked.Mark, marked.Mask = markBit, &mask
	inner := newRule(af, 291, unix.RT_TABLE_MAIN)
	inner.Src, inner.IifName = ipNet(loopback), "lo"
	inner.SuppressPrefixlen, inner.SuppressIfgroup = 0, uplinkGroup
	outer := newRule(af, 292, table)
	outer.Src, outer.IifName = ipNet(loopback), "lo"
	return []*netlink.Rule{marked, inner, outer}
}

func newRule(af, priority, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table = af, priority, table
	return r
}

// ensureRules makes a family's rules, and the route to which they lead, in the
// calling thread's namespace, as far as they are missing.
func ensureRules(af, uplink int) error {
	present, err := netns.Undisturbed(func() ([]netlink.Rule, error) { return netlink.RuleList(af) })
	if err != nil {
		return fmt.Errorf("listing routing rules: %w", err)
	}
	for _, r := range ruleset(af) {
		same := func(p netlink.Rule) bool { return p.Priority == r.Priority && p.Table == r.Table }
		if slices.ContainsFunc(present, same) {
			continue
		}
		if err := netlink.RuleAdd(r); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("adding the routing rule %d: %w", r.Priority, err)
		}
	}
	if err := ensureRoute(af); err != nil {
		return err
	}
	return ensureGroup(uplink)
}

// ensureRoute makes "local default dev lo table 29291".
func ensureRoute(af int) error {
	everything := netip.MustParsePrefix("0.0.0.0/0")
	if af == unix.AF_INET6 {
		everything = netip.MustParsePrefix("::/0")
	}
	err := netlink.RouteReplace(&netlink.Route{
		Family: af, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		LinkIndex: loIndex, Dst: ipNet(everything), Table: table,
	})
	if err != nil {
		return fmt.Errorf("adding the local route: %w", err)
	}
	return nil
}

// ensureGroup puts the uplink into the group that rule 291 skips.
func ensureGroup(uplink int) error {
	if uplink == 0 {
		return nil
	}
	link, err := netlink.LinkByIndex(uplink)
	if err != nil {
		return fmt.Errorf("interface %d: %w", uplink, err)
	}
	if link.Attrs().Group == uplinkGroup {
		return nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(uplink)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(uplinkGroup)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("group of the interface %q: %w", link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
