package sourceip

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nft makes the marks with nf_tables, over netlink.
type nft struct {
	// impatient says that the kernel has no objects for timeouts, see nftpatience.go.
	impatient *atomic.Bool
}

func newNFT() nft { return nft{new(atomic.Bool)} }

func (nft) name() string { return "nft" }

// usable implements backend.
func (nft) usable() error {
	_, err := withNFT(func(c *nftables.Conn) ([]*nftables.Table, error) { return c.ListTables() })
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	return nil
}

// nftChain is a base chain and its rules.
type nftChain struct {
	nftables.Chain
	rules [][]expr.Any
}

// nftChains returns the chains of each of the two tables:
//
//	chain patience {
//		type filter hook output priority mangle + 1
//		meta l4proto udp fib saddr type != local ct status & confirmed == 0
//			limit rate 8/second burst 4096 packets ct timeout set "patience"
//		(IPv6:) the same for ip6 daddr ::1 ip6 saddr != ::1
//	}
//	chain output {
//		type route hook output priority mangle + 1
//		oif lo ct mark set ct mark | MARK return
//		ct mark & MARK == MARK fib saddr type local meta mark set meta mark | MARK
//		ct state new fib saddr type != local ct mark set ct mark | MARK
//	}
//	chain prerouting {
//		type filter hook prerouting priority mangle + 1
//		iif != lo ct mark & MARK == MARK meta mark set meta mark | MARK
//	}
//
// The last rule of output is for ports that lead to another host of the inner
// networks, so that the connection does not start on lo. No rule checks the
// direction of the connection: a UDP server may send first after conntrack has
// forgotten a silent client, and is then the originator.
func (n nft) chains(t *nftables.Table) []nftChain {
	priority := nftables.ChainPriorityRef(*nftables.ChainPriorityMangle + 1)
	output := nftables.Chain{Name: "output", Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: priority}
	prerouting := nftables.Chain{Name: "prerouting", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: priority}
	chains := []nftChain{
		{output, [][]expr.Any{
			slices.Concat(ifaceIsLo(expr.MetaKeyOIF, expr.CmpOpEq), markConnection(), verdict(expr.VerdictReturn)),
			slices.Concat(connectionMarked(), sourceLocal(expr.CmpOpEq), markPacket()),
			slices.Concat(connectionNew(), sourceLocal(expr.CmpOpNeq), markConnection()),
		}},
		{prerouting, [][]expr.Any{
			slices.Concat(ifaceIsLo(expr.MetaKeyIIF, expr.CmpOpNeq), connectionMarked(), markPacket()),
		}},
	}
	if !n.impatient.Load() {
		chains = append(chains, patience(t))
	}
	return chains
}

// ensure implements backend. It finds out by trying whether the kernel supports
// timeouts, since most do, and the first client waits.
func (n nft) ensure(af int) error {
	t := nftTable(af)
	if nftComplete(t, n.chains(t)) {
		return nil
	}
	err := n.make(t)
	if err != nil && n.impatient.CompareAndSwap(false, true) {
		if n.make(t) == nil {
			return nil
		}
		n.impatient.Store(false) // the timeouts were not the reason
	}
	return err
}

// make makes a table in one transaction, so that it is never incomplete. It replaces
// an existing table, for which the kernel waits for all CPUs: ten times as long as
// everything else takes.
func (n nft) make(t *nftables.Table) error {
	_, err := withNFT(func(c *nftables.Conn) (any, error) {
		if _, err := c.ListTableOfFamily(t.Name, t.Family); err == nil {
			c.DelTable(t)
		}
		c.AddTable(t)
		if !n.impatient.Load() {
			c.AddObj(patienceOf(t))
		}
		for _, chain := range n.chains(t) {
			chain.Table = t
			c.AddChain(&chain.Chain)
			for _, exprs := range chain.rules {
				c.AddRule(&nftables.Rule{Table: t, Chain: &chain.Chain, Exprs: exprs})
			}
		}
		return nil, c.Flush()
	})
	if err != nil {
		return fmt.Errorf("nf_tables: making the table %q: %w", t.Name, err)
	}
	return nil
}

func nftTable(af int) *nftables.Table {
	family := nftables.TableFamilyIPv4
	if af == unix.AF_INET6 {
		family = nftables.TableFamilyIPv6
	}
	return &nftables.Table{Name: "rootlesskit", Family: family}
}

// nftComplete counts the rules of the table.
func nftComplete(t *nftables.Table, chains []nftChain) bool {
	for _, chain := range chains {
		rules, err := withNFT(func(c *nftables.Conn) ([]*nftables.Rule, error) { return c.GetRules(t, &chain.Chain) })
		if err != nil || len(rules) != len(chain.rules) {
			return false
		}
	}
	return true
}

// withNFT calls f with a connection to nf_tables of the calling thread's
// namespace.
func withNFT[T any](f func(*nftables.Conn) (T, error)) (T, error) {
	c, err := nftables.New()
	if err != nil {
		var zero T
		return zero, err
	}
	return f(c)
}

// ifaceIsLo compares the interface (MetaKeyIIF, MetaKeyOIF) with lo.
func ifaceIsLo(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: native(loIndex)}}
}

// sourceLocal compares the type of the source address with local.
func sourceLocal(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: op, Register: 1, Data: native(unix.RTN_LOCAL)},
	}
}

// connectionMarked matches packets of marked connections.
func connectionMarked() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		bits(markBit, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(markBit)},
	}
}

// connectionNew matches packets of connections without a reply yet.
func connectionNew() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		bits(expr.CtStateBitNEW, 0),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
	}
}

// markConnection adds the bit to the conntrack mark.
func markConnection() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		bits(^uint32(markBit), markBit),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}

// markPacket adds the bit to the packet mark.
func markPacket() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		bits(^uint32(markBit), markBit),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// bits returns the expression register = register & mask ^ xor.
func bits(mask, xor uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(mask), Xor: native(xor)}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
