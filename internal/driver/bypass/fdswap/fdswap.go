// Package fdswap acts on the sockets of another process that is stopped in a
// system call by a seccomp filter: it looks at the socket that the call is about,
// gives the process another socket in its place, and connects a socket in place of
// the process.
//
// Theory of operation. The listener of the filter (package seccomp) reports a
// call; Open opens the thread that made it, and Caller.Socket duplicates the
// socket. Caller.Prepare copies what the process has set on that socket to the new
// one, and finds out under which descriptors and in which epoll instances the
// process has the old one. Swap.Do then puts the new socket in all those places,
// while the thread is still stopped: it notices nothing. Where a signal interrupts the
// thread in between, and it makes the call again, Caller.Finish does the rest. What
// the call returns is decided by the owner of the listener, who knows what the socket
// is for.
//
// The processes may be hostile, and other threads of theirs run meanwhile. So
// nothing that they can write is believed, nothing is looked up by a number that
// may be another process's by now without a check (seccomp.Call.Valid) afterwards,
// and a socket that another process has too is refused, since that process would
// keep the old one.
package fdswap

import "golang.org/x/sys/unix"

// Swap is the replacement of a socket of a caller by another one.
type Swap struct {
	caller      *Caller
	from, to    int
	descriptors []descriptor
	epolls      []epoll
}

// Prepare prepares the replacement of a socket of the caller by the socket with the
// descriptor to, which gets the options of the old one. The caller of Prepare calls
// Close, and keeps both open until then.
func (c *Caller) Prepare(from *Socket, to int) (*Swap, error) {
	if err := from.copyTo(to); err != nil {
		return nil, err
	}
	s := &Swap{caller: c, from: from.FD, to: to, descriptors: c.descriptors(from.Inode)}
	s.epolls = c.epolls(s.descriptors)
	return s, nil
}

// Do puts the new socket in the place of the old one, under all descriptors, that of
// the call first, and in all epoll instances. It fails where the caller has no room;
// some descriptors may be the new socket's then. It fails too where the caller no
// longer waits, but not if it was interrupted after the first: the rest is for Finish.
func (s *Swap) Do() error {
	for i, d := range s.descriptors {
		err := s.caller.replace(d, s.to)
		if i > 0 && err == ErrGone {
			break
		}
		if err != nil {
			return err
		}
	}
	return moveEpolls(s.epolls, s.from, s.to)
}

// Finish ends an interrupted swap, for a caller that makes its call again: it puts the
// new socket, with the descriptor to, under the descriptors that are left.
func (c *Caller) Finish(from uint64, to int) error {
	for _, d := range c.descriptors(from) {
		if err := c.replace(d, to); err != nil {
			return err
		}
	}
	return nil
}

// replace puts a socket under one descriptor of the caller.
func (c *Caller) replace(d descriptor, to int) error {
	err := c.call.ReplaceFD(to, d.number, d.closeOnExec)
	if err == unix.ENOENT || err == unix.ESRCH { // before the kernel has seen this, or then
		return ErrGone
	}
	return err
}

// Close closes what Prepare has opened.
func (s *Swap) Close() {
	for _, e := range s.epolls {
		unix.Close(e.fd)
	}
}
