package sourceip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/sockio"
)

// A firewall inside sees a reply before its mark has led it to lo, as a packet
// that leaves through the uplink, and may drop it. So the marks are tried, with a
// datagram from a client that does not exist, and the answer to it.

// trialAgain is the least time between two requested trials.
const trialAgain = time.Second

// trialPatience bounds the wait for an answer, which arrives on lo at once.
const trialPatience = 200 * time.Millisecond

var errNotCarried = errors.New("a packet filter of the namespace drops the answers to clients outside, although they are delivered on lo; " +
	"accepting established connections (nft: ct state established accept) in its output hook helps")

// trial is the result of trying the marks of a family.
type trial struct {
	err  error
	done time.Time
}

// try tries the marks of a family, unless that was done recently. again says that
// the last result is in doubt.
func (a *agent) try(i int, own netip.Addr, again bool) error {
	t := &a.trials[i]
	since := time.Since(t.done)
	if t.done.IsZero() || since > recheck || again && since > trialAgain {
		t.err = tryMarks(own, outside[i])
		t.done = time.Now()
	}
	return t.err
}

// tryMarks sends a datagram from a foreign address to a server on the wildcard
// address, and back. A problem with the trial itself proves nothing.
func tryMarks(own, foreign netip.Addr) error {
	server, client, err := trialSockets(own, foreign)
	if err != nil {
		return nil
	}
	defer server.Close()
	defer client.Close()
	sfd, cfd := int(server.Fd()), int(client.Fd())
	if err := unix.Send(cfd, []byte("?"), 0); err != nil || !readable(sfd) {
		return nil
	}
	_, from, err := unix.Recvfrom(sfd, make([]byte, 1), unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	if err := unix.Sendto(sfd, []byte("!"), 0, from); err != nil {
		return fmt.Errorf("%w (%w)", errNotCarried, err)
	}
	if !readable(cfd) {
		return errNotCarried
	}
	return nil
}

// trialSockets returns a server's socket and a client's that is connected to it.
func trialSockets(own, foreign netip.Addr) (server, client *os.File, err error) {
	if server, err = trialSocket(own); err != nil {
		return nil, nil, err
	}
	if client, err = trialSocket(own); err != nil {
		server.Close()
		return nil, nil, err
	}
	wildcard := netip.IPv4Unspecified()
	level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
	if own.Is6() {
		wildcard = netip.IPv6Unspecified()
		level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	sfd, cfd := int(server.Fd()), int(client.Fd())
	errno := sockio.Bind(sfd, netip.AddrPortFrom(wildcard, 0))
	if errno == 0 {
		sockio.SetInt(cfd, level, transparent, 1) // otherwise the address is refused
		errno = sockio.Bind(cfd, netip.AddrPortFrom(foreign, 0))
	}
	if errno == 0 {
		errno = sockio.Connect(cfd, netip.AddrPortFrom(own, sockio.LocalAddr(sfd).Port()))
	}
	if errno != 0 {
		server.Close()
		client.Close()
		return nil, nil, errno
	}
	return server, client, nil
}

func trialSocket(of netip.Addr) (*os.File, error) {
	fd, err := unix.Socket(sockio.Family(of), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "trial"), nil
}

// readable waits until a socket can be read.
func readable(fd int) bool {
	end := time.Now().Add(trialPatience)
	for left := trialPatience; left > 0; left = time.Until(end) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
	return false
}
