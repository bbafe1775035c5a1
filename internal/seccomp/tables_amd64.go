package seccomp

import "golang.org/x/sys/unix"

// lowWord is where the lower half of an argument is.
const lowWord = 0

var syscalls = table{
	audit: unix.AUDIT_ARCH_X86_64, bind: unix.SYS_BIND, connect: unix.SYS_CONNECT, ioUringSetup: ioUringSetup,
	setsockopt: unix.SYS_SETSOCKOPT, sendto: unix.SYS_SENDTO, sendmsg: unix.SYS_SENDMSG, sendmmsg: unix.SYS_SENDMMSG, x32: true,
}

// compat is i386.
var compat = table{
	audit: unix.AUDIT_ARCH_I386, bind: 361, connect: 362, ioUringSetup: ioUringSetup,
	setsockopt: 366, sendto: 369, sendmsg: 370, sendmmsg: 345, socketcall: 102,
}
