package hostsock

import (
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// etherTypeIPv4 is SKF_AD_PROTOCOL of an IPv4 connection.
const etherTypeIPv4 = 0x0800

// Steer makes the kernel give each new connection to a random one of the n
// sockets of the base's own family in front of it, or to the base if n is 0. The
// sockets of a group are numbered in the order in which they began to listen, and
// the base is 0. If there is no socket with the chosen number, the kernel chooses
// among all of them. With v6, IPv4 connections go to the base. See
// SO_ATTACH_REUSEPORT_CBPF in socket(7).
func (b *Base) Steer(n int, v6 bool) error {
	var program []bpf.Instruction
	if v6 {
		program = append(program,
			bpf.LoadExtension{Num: bpf.ExtProto},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeIPv4, SkipFalse: 1},
			bpf.RetConstant{Val: 0})
	}
	switch n {
	case 0, 1:
		program = append(program, bpf.RetConstant{Val: uint32(n)})
	default:
		program = append(program,
			bpf.LoadExtension{Num: bpf.ExtRand},
			bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1},
			bpf.RetA{})
	}
	prog, err := sockio.Program(program)
	if err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF",
		unix.SetsockoptSockFprog(b.FD, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, prog))
}
