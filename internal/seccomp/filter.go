package seccomp

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// table has the system call numbers of one architecture; 0 means that there is none.
type table struct {
	audit                       uint32 // AUDIT_ARCH_*
	bind, connect, ioUringSetup uint32
	setsockopt                  uint32
	sendto, sendmsg, sendmmsg   uint32
	// x32 says that numbers with x32Bit belong to another architecture, which
	// audit does not distinguish.
	x32 bool
	// socketcall takes one of these as its first argument, and has the others in
	// memory (socketcall(2)).
	socketcall uint32
}

// The calls of socketcall(2).
const (
	callBind     = 2
	callConnect  = 3
	callSendto   = 11
	callSendmsg  = 16
	callSendmmsg = 20
)

// ioUringSetup has the same number on all architectures but alpha.
const ioUringSetup = 425

// x32Bit marks the system calls of x32 (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// program returns the filter: a block for each architecture. A call that falls
// through its block is allowed.
func (p Policy) program() []bpf.Instruction {
	prog := []bpf.Instruction{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	for _, t := range []table{syscalls, compat} {
		if t.audit == 0 {
			continue
		}
		block := p.block(t)
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: t.audit, SkipFalse: uint8(len(block))})
		prog = append(prog, block...)
	}
	return append(prog, allow)
}

var (
	allow  = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	notify = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
)

func fail(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

func (p Policy) block(t table) []bpf.Instruction {
	block := []bpf.Instruction{bpf.LoadAbsolute{Off: offNr, Size: 4}}
	call := func(nr uint32, then ...bpf.Instruction) {
		if nr != 0 {
			block = append(block, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: uint8(len(then))})
			block = append(block, then...)
		}
	}
	call(t.bind, notify)
	if p.Isolate {
		if t.x32 {
			block = append(block, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, fail(unix.ENOSYS))
		}
		call(t.connect, notify)
		call(t.ioUringSetup, fail(unix.ENOSYS))
		call(t.setsockopt, refuseULP...)
		call(t.sendto, refuseFastOpen(3)...)
		call(t.sendmsg, refuseFastOpen(2)...)
		call(t.sendmmsg, refuseFastOpen(3)...)
	}
	call(t.socketcall, p.socketcall()...)
	return append(block, allow)
}

// refuseFastOpen looks for MSG_FASTOPEN in the argument with the given number.
func refuseFastOpen(arg uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArgs + 8*arg + lowWord, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MSG_FASTOPEN, SkipFalse: 1},
		fail(unix.EOPNOTSUPP),
		allow,
	}
}

// tcpULP is TCP_ULP of linux/tcp.h.
const tcpULP = 31

// refuseULP refuses setsockopt(TCP_ULP): "smc" turns a TCP socket into another
// kind, which Landlock does not know. The error is that of a ULP that does not
// exist, so that libraries do TLS outside the kernel.
var refuseULP = []bpf.Instruction{
	bpf.LoadAbsolute{Off: offArgs + 8*1 + lowWord, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipFalse: 3},
	bpf.LoadAbsolute{Off: offArgs + 8*2 + lowWord, Size: 4},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: tcpULP, SkipFalse: 1},
	fail(unix.ENOENT),
	allow,
}

// socketcall refuses, under isolation, all calls that send to an address,
// because their flags are in memory. No current libc uses these calls.
func (p Policy) socketcall() []bpf.Instruction {
	calls := []bpf.Instruction{bpf.LoadAbsolute{Off: offArgs + lowWord, Size: 4}}
	call := func(number uint32, then bpf.Instruction) {
		calls = append(calls, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: 1}, then)
	}
	call(callBind, notify)
	if p.Isolate {
		call(callConnect, notify)
		for _, send := range []uint32{callSendto, callSendmsg, callSendmmsg} {
			call(send, fail(unix.EOPNOTSUPP))
		}
	}
	return append(calls, allow)
}
