package fdswap

import (
	"os"

	"golang.org/x/sys/unix"
)

// copied are the options that a server may have set on its socket, and that mean
// the same in the host. See socket(7), ip(7), ipv6(7), tcp(7),
// udp(7).
var copied = []struct{ level, name int }{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_BROADCAST},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_DONTROUTE},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMP},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPING},
	{unix.SOL_SOCKET, unix.SO_BUSY_POLL},
	{unix.SOL_SOCKET, unix.SO_INCOMING_CPU},
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_MAXSEG},
	{unix.IPPROTO_TCP, unix.TCP_CORK},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_SYNCNT},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP},
	{unix.IPPROTO_TCP, unix.TCP_QUICKACK},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	{unix.IPPROTO_TCP, unix.TCP_SAVE_SYN},
	{unix.IPPROTO_TCP, unix.TCP_INQ},
	{unix.IPPROTO_UDP, unix.UDP_SEGMENT},
	{unix.IPPROTO_UDP, unix.UDP_GRO},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TTL},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	{unix.IPPROTO_IP, unix.IP_RECVERR},
	{unix.IPPROTO_IP, unix.IP_RECVTOS},
	{unix.IPPROTO_IP, unix.IP_RECVTTL},
	{unix.IPPROTO_IP, unix.IP_PKTINFO},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS},
	{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
}

// copyTo makes a new socket like this one: what differs is set. An option that
// one of them does not have, or that the new one does not take, is left.
func (s *Socket) copyTo(fd int) error {
	for _, o := range copied {
		is, err := unix.GetsockoptInt(fd, o.level, o.name)
		want, err2 := unix.GetsockoptInt(s.FD, o.level, o.name)
		if err == nil && err2 == nil && is != want {
			_ = unix.SetsockoptInt(fd, o.level, o.name, want)
		}
	}
	s.copyBuffers(fd)
	if l, err := unix.GetsockoptLinger(s.FD, unix.SOL_SOCKET, unix.SO_LINGER); err == nil && l.Onoff != 0 {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, l)
	}
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if tv, err := unix.GetsockoptTimeval(s.FD, unix.SOL_SOCKET, name); err == nil && (tv.Sec != 0 || tv.Usec != 0) {
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, name, tv)
		}
	}
	if cc, err := unix.GetsockoptString(s.FD, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil {
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, cc)
	}
	flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
	return os.NewSyscallError("fcntl", err)
}

// SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK of SO_BUF_LOCK (Linux 5.14): the size was
// set, and does not follow the traffic.
const (
	sndbufLock = 1
	rcvbufLock = 2
)

// copyBuffers copies the sizes of buffers that were set. The kernel tells twice
// what it was told (socket(7)).
func (s *Socket) copyBuffers(fd int) {
	locked, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err != nil {
		return
	}
	for lock, name := range map[int]int{sndbufLock: unix.SO_SNDBUF, rcvbufLock: unix.SO_RCVBUF} {
		if size, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, name); err == nil && locked&lock != 0 {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, size/2)
		}
	}
}
