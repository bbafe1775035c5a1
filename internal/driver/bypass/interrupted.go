package bypass

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/driver/bypass/fdswap"
)

// A signal may interrupt a bind that is being answered, where the filter allows that:
// those of container runtimes do, that of the command does not
// (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV). The kernel restarts the bind, or the
// program does after EINTR, and it is reported as a new one. What was done for the
// first remains, though the server has not been told: its socket is bound, or even
// replaced. Another bind of it would fail, so the second one has to be recognized.

// unanswered are binds of sockets that are bound, and whose servers do not know it.
type unanswered struct {
	mu    sync.Mutex
	binds []boundSocket // the newest last
}

// boundSocket is a socket, by its SO_COOKIE, which no other one ever has.
type boundSocket struct {
	cookie uint64
	addr   netip.AddrPort
}

// maxUnanswered bounds the sockets that nobody asks for any more: of servers that were
// killed or never tried again, and those that were replaced before the second try.
const maxUnanswered = 256

// bind binds the socket, which an interrupted bind may have done already.
func (u *unanswered) bind(b *bind) unix.Errno {
	u.mu.Lock()
	defer u.mu.Unlock()
	errno := b.socket.Bind(b.raw)
	switch {
	case errno == 0:
		u.binds = append(u.binds, b.of())
		u.binds = u.binds[max(0, len(u.binds)-maxUnanswered):]
	case errno == unix.EINVAL && slices.Contains(u.binds, b.of()):
		errno = 0
	}
	return errno
}

// has reports whether an interrupted bind has bound the socket.
func (u *unanswered) has(b *bind) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Contains(u.binds, b.of())
}

// forget notes that the server knows.
func (u *unanswered) forget(b *bind) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.binds = slices.DeleteFunc(u.binds, func(s boundSocket) bool { return s == b.of() })
}

func (b *bind) of() boundSocket { return boundSocket{b.socket.Cookie, b.addr} }

// errSwapped is for a socket that was replaced before, so it is bound.
var errSwapped = fmt.Errorf("the socket is one of the host already: %w", refusal{unix.EINVAL})

// interrupted returns the native that an interrupted bind has made of a socket; nil:
// none has. The port is locked.
func (p *port) interrupted(s *fdswap.Socket) *native {
	i := slices.IndexFunc(p.natives, func(n native) bool {
		return n.unanswered && (n.inode == s.Inode || n.from == s.Inode)
	})
	if i < 0 {
		return nil
	}
	return &p.natives[i]
}

// finish does what is left of an interrupted bind. The port is locked.
func (p *port) finish(b *bind, n *native) error {
	s, err := b.caller.Socket(b.FD)
	if err != nil {
		return refusal{err}
	}
	defer s.Close()
	if err := b.caller.Finish(n.from, s.FD); err != nil {
		return refusal{err}
	}
	n.unanswered = !p.tell(b, 0)
	return nil
}
