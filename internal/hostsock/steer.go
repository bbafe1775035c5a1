package hostsock

import (
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// etherTypeIPv4 is SKF_AD_PROTOCOL of an IPv4 connection.
const etherTypeIPv4 = 0x0800

// Steer leads new connections to the n sockets of the base's own family that are
// in front of it, in turns by chance, and with n 0 to the base. The sockets of
// a group are numbered in the order in which they listened, the base as 0; where
// there is none with a number, the kernel spreads over all that are there. v6
// leaves IPv4 connections to the base. See SO_ATTACH_REUSEPORT_CBPF in socket(7).
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
