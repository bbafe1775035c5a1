package gvisor

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"rootlesskit/internal/sockio"
)

// prepareEndpoint is sockio.PrepareTCP for the stack's side of a relay. Both sides
// probe their peer, since keep-alive probes of applications end at the stack.
func prepareEndpoint(ep tcpip.Endpoint) {
	setKeepAlive(ep, sockio.KeepAliveIdle*time.Second, sockio.KeepAliveInterval*time.Second, sockio.KeepAliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}

func setKeepAlive(ep tcpip.Endpoint, idle, interval time.Duration, count int) {
	i, v := tcpip.KeepaliveIdleOption(idle), tcpip.KeepaliveIntervalOption(interval)
	_ = ep.SetSockOpt(&i)
	_ = ep.SetSockOpt(&v)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, count)
}
