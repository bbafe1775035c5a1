package seccomp

import "golang.org/x/sys/unix"

// lowWord is where the lower half of an argument is.
const lowWord = 0

var syscalls = table{
	audit: unix.AUDIT_ARCH_AARCH64, bind: unix.SYS_BIND, connect: unix.SYS_CONNECT, ioUringSetup: ioUringSetup,
	setsockopt: unix.SYS_SETSOCKOPT, sendto: unix.SYS_SENDTO, sendmsg: unix.SYS_SENDMSG, sendmmsg: unix.SYS_SENDMMSG,
}

// compat is arm, EABI.
var compat = table{
	audit: unix.AUDIT_ARCH_ARM, bind: 282, connect: 283, ioUringSetup: ioUringSetup,
	setsockopt: 294, sendto: 290, sendmsg: 296, sendmmsg: 374,
}
