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
// (SIP, games, tunnels), and its clients' flows live in the relay for an hour. So
// conntrack is told to keep them as long.
const (
	patienceName = "patience"
	patienceTime = time.Hour
)

// The longer timeout is limited to about as many flows as the relay keeps. Others,
// such as queries to a busy DNS server, must not fill conntrack's table with entries
// that no one needs.
const (
	patienceBurst = 4096
	patienceRate  = 8 // a second
)

// ipsConfirmed is the status bit that a connection does not have at its first packet.
const ipsConfirmed = 1 << 3

// patienceOf returns the timeout object. Kernels support it from Linux 4.19 on, if
// built with CONFIG_NF_CONNTRACK_TIMEOUT.
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

// patience returns the chain that sets the timeout for flows of outside clients. The
// kernel accepts it only for a connection's first packet.
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

// foreignToLoopback6 matches packets to ::1 from another address. The kernel would
// consider that address local, because it looks up the route from ::1 to it, and so
// finds rule 292.
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
