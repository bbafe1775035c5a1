package bypass

import (
	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/bypass/fdswap"
	"rootlesskit/internal/seccomp"
)

// connect makes a connection in place of the caller, under isolation. It uses its own
// copies of the address and of the socket, so it does not matter what the caller
// changes meanwhile. Sockets of the host are not connected, whatever the address.
//
// What is not TCP passes through: where the caller puts a TCP socket in the place of
// such a one meanwhile, Landlock refuses the connect.
//
// Only a connection that has to be waited for gets a goroutine, by async: to wake one
// up takes longer than all the rest.
func (p *Ports) connect(call seccomp.Call, async func(func())) {
	address, err := call.Sockaddr()
	if err != nil || len(address) < 2 {
		call.Continue()
		return
	}
	caller, err := fdswap.Open(call)
	if err != nil {
		call.Continue()
		return
	}
	s, err := caller.Socket(call.FD)
	if err != nil {
		caller.Close()
		call.Continue()
		return
	}
	finish := func(errno unix.Errno) {
		s.Close()
		caller.Close()
		_ = call.Return(errno)
	}
	switch {
	case !s.TCP():
		s.Close()
		caller.Close()
		call.Continue()
	case s.Netns == p.host:
		p.log().Debug("a socket of the host may not be connected from inside", "pid", caller.TID)
		finish(unix.EACCES)
	default:
		errno, connecting := caller.Connect(s, address)
		if connecting == nil {
			finish(errno)
			return
		}
		async(func() { finish(connecting.Await()) })
	}
}
