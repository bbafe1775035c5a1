package gvisor

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// A connection whose peer has vanished without a packet ends after keepAliveIdle
// and keepAliveCount probes, keepAliveInterval apart: as with Go's net package,
// which the clients of RootlessKit are used to. Both sides ask, since the probes
// of the applications end at the stack.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 9
)

// prepareSocket sets the options of a relayed socket of the host. None of them is
// vital.
func prepareSocket(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAliveIdle/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAliveInterval/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// prepareEndpoint is the same for the stack's side of a relay.
func prepareEndpoint(ep tcpip.Endpoint) {
	setKeepAlive(ep, keepAliveIdle, keepAliveInterval, keepAliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}

func setKeepAlive(ep tcpip.Endpoint, idle, interval time.Duration, count int) {
	i, v := tcpip.KeepaliveIdleOption(idle), tcpip.KeepaliveIntervalOption(interval)
	_ = ep.SetSockOpt(&i)
	_ = ep.SetSockOpt(&v)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, count)
}
