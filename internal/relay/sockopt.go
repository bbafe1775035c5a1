package relay

import "golang.org/x/sys/unix"

// A connection whose peer has vanished without a packet ends after keepAliveIdle
// and keepAliveCount probes, keepAliveInterval apart: as with Go's net package,
// which the clients of RootlessKit are used to.
const (
	keepAliveIdle     = 15 // seconds
	keepAliveInterval = 15 // seconds
	keepAliveCount    = 9
)

// localCongestion is the congestion control of paths within the machine, which
// have no congestion. BBR, where it is the system's, would pace what is sent by
// high-resolution timers: that takes a third of the throughput and half of the
// CPU time of a relayed stream. Every user may choose Reno, and every kernel has
// it (tcp(7), TCP_CONGESTION).
const localCongestion = "reno"

// prepareTCP sets what both sockets of a connection have. Accepted sockets inherit
// it from their listener, and pooled ones get it off the loops, so that it costs a
// connection nothing. None of it is vital.
func prepareTCP(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveIdle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveInterval)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
