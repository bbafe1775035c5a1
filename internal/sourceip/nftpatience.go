package sourceip

import (
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// conntrack forgets a UDP client after 30 s without a reply, and 2 min after the
// last one, and with it the mark that leads replies to lo. A server may take longer
// (SIP, games, tunnels), and its clients' flows live in the relay for an hour.
// So conntrack is told to be as patient with them.
const (
	patienceName = "patience"
	patienceTime = time.Hour
)

// As many flows are given the time as the relay keeps: others, such as the questions
// to a busy DNS server, must not fill conntrack's table with what nobody waits for.
const (
	patienceBurst = 4096
	patienceRate  = 8 // a second
)

// ipsConfirmed is the bit of a connection's status that its first packet lacks.
const ipsConfirmed = 1 << 3

// patienceOf is the object for it. Kernels have it from Linux 4.19 on, if built with
// CONFIG_NF_CONNTRACK_TIMEOUT.
func patienceOf(t *nftables.Table) *nftables.NamedObj {
	family := uint16(unix.AF_INET)
	if t.Family == nftables.TableFamilyIPv6 {
		family = unix.AF_INET6
	}
	seconds := uint32(patienceTime.Seconds())
	return &nftables.NamedObj{
		Table: t, Name: patienceName, Type: nftables.ObjTypeCtTimeout,
		Obj: &expr.CtTimeout{L3Proto: family, L4Proto: unix.IPPROTO_UDP, Policy: expr.CtStatePolicyTimeout{
			expr.CtStateUDPUNREPLIED: seconds, expr.CtStateUDPREPLIED: seconds,
		}},
	}
}

// patience is the chain that gives the flows of clients from outside their time. The
// kernel takes it for a connection's first packet alone.
func patience(t *nftables.Table) nftChain {
	give := func(from []expr.Any) []expr.Any {
		return slices.Concat(protocolIs(unix.IPPROTO_UDP), from, connectionUnconfirmed(), []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: patienceRate, Unit: expr.LimitTimeSecond, Burst: patienceBurst},
			&expr.Objref{Type: int(nftables.ObjTypeCtTimeout), Name: patienceName},
		})
	}
	rules := [][]expr.Any{give(sourceLocal(expr.CmpOpNeq))}
	if t.Family == nftables.TableFamilyIPv6 {
		rules = append(rules, give(foreignToLoopback6()))
	}
	return nftChain{nftables.Chain{
		Name: patienceName, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityMangle + 1),
	}, rules}
}

// foreignToLoopback6 matches what goes to ::1 from another address. The kernel takes
// that for local, because it looks for the way from ::1 to it, and so finds rule 292.
func foreignToLoopback6() []expr.Any {
	address := func(offset uint32, op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 16},
			&expr.Cmp{Op: op, Register: 1, Data: loopback6.Addr().AsSlice()},
		}
	}
	const source, destination = 8, 24 // in the header
	return slices.Concat(address(destination, expr.CmpOpEq), address(source, expr.CmpOpNeq))
}

func protocolIs(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func connectionUnconfirmed() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		bits(ipsConfirmed, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
	}
}
