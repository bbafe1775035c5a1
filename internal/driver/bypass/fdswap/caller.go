package fdswap

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"rootlesskit/internal/seccomp"
)

// Caller is a thread that is stopped in a system call.
type Caller struct {
	TID int
	// PID is the process of the thread, once ReadStatus has read it.
	PID int

	call  seccomp.Call
	pidfd int
	// The capabilities in effect, and sets of signals: ReadStatus reads them.
	caps            uint64
	caught, pending uint64
}

var (
	// ErrGone says that the caller no longer waits for an answer.
	ErrGone = errors.New("the caller has ended, or was interrupted")
	// ErrNoSocket says that a descriptor is no socket.
	ErrNoSocket = errors.New("the descriptor is no socket")
)

// pidfdThread is PIDFD_THREAD (Linux 6.9): a descriptor for a thread, whose table
// of descriptors may not be its process's.
const pidfdThread = unix.O_EXCL

// Open opens the thread that has made a call. The caller of Open calls Close.
func Open(call seccomp.Call) (*Caller, error) {
	c := &Caller{TID: call.TID, call: call}
	var err error
	if c.pidfd, err = unix.PidfdOpen(c.TID, pidfdThread); err == unix.EINVAL {
		if err = c.ReadStatus(); err == nil {
			c.pidfd, err = unix.PidfdOpen(c.PID, 0)
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if !call.Valid() {
		c.Close()
		return nil, ErrGone
	}
	return c, nil
}

// Close closes the caller, which stays stopped.
func (c *Caller) Close() { unix.Close(c.pidfd) }

// ReadStatus reads what /proc says of the thread now: its process, capabilities and
// signals. See proc_pid_status(5).
func (c *Caller) ReadStatus() error {
	text, err := readProc("%d/status", c.TID)
	if err != nil {
		return err
	}
	return c.parseStatus(text)
}

func (c *Caller) parseStatus(text string) (err error) {
	c.pending = 0
	keyValues(text, func(key, value string) {
		set, _ := strconv.ParseUint(value, 16, 64)
		switch key {
		case "Tgid":
			if c.PID, err = strconv.Atoi(value); err != nil {
				err = fmt.Errorf("the process of thread %d: %w", c.TID, err)
			}
		case "CapEff":
			c.caps = set
		case "SigPnd", "ShdPnd":
			c.pending |= set
		case "SigBlk":
			c.pending &^= set
		case "SigCgt":
			c.caught = set
		}
	})
	return err
}

// Has reports whether a capability was in effect at ReadStatus.
func (c *Caller) Has(capability int) bool { return c.caps&(1<<capability) != 0 }

// interrupted reports whether a signal is pending that the caller has a handler for.
func (c *Caller) interrupted() bool { return c.ReadStatus() == nil && c.pending&c.caught != 0 }

// CommandLine is what the process, known from ReadStatus, says of itself: its
// arguments, each with a zero byte at its end.
func (c *Caller) CommandLine() (string, error) { return readProc("%d/cmdline", c.PID) }

// Socket returns the socket under a descriptor of the caller, as a duplicate that the
// caller of Socket closes. Where there is none the error is ErrNoSocket.
func (c *Caller) Socket(fd int) (*Socket, error) {
	dup, err := unix.PidfdGetfd(c.pidfd, fd, 0)
	if err == unix.EBADF {
		return nil, ErrNoSocket
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	s, err := describe(dup)
	if err != nil {
		return nil, errors.Join(ErrNoSocket, err)
	}
	if link := fdLink(c.TID, fd); link != socketLink(s.Inode) {
		s.Close()
		return nil, fmt.Errorf("descriptor %d of thread %d is not its process's", fd, c.TID)
	}
	return s, nil
}

// CheckSole says which other process has the socket too, and would keep it after a
// swap; nil: none has. ReadStatus comes first.
func (c *Caller) CheckSole(s *Socket) error {
	wanted := is(socketLink(s.Inode))
	for _, pid := range processes() {
		if pid != c.PID && len(fdsOf(pid, wanted)) > 0 {
			return fmt.Errorf("the server's socket is also another process's (PID %d)", pid)
		}
	}
	return nil
}

// descriptor is an entry of a table of descriptors.
type descriptor struct {
	number      int
	closeOnExec bool
}

// descriptors are those of the caller for a socket, that of the call first.
func (c *Caller) descriptors(inode uint64) []descriptor {
	var found []descriptor
	for _, fd := range fdsOf(c.TID, is(socketLink(inode))) {
		found = append(found, descriptor{fd, closeOnExec(c.TID, fd)})
	}
	if i := slices.IndexFunc(found, func(d descriptor) bool { return d.number == c.call.FD }); i > 0 {
		found[0], found[i] = found[i], found[0]
	}
	return found
}

func is(link string) func(string) bool { return func(l string) bool { return l == link } }

func closeOnExec(pid, fd int) bool {
	flags := fdInfo(pid, fd)["flags"]
	return len(flags) == 1 && octal(flags[0])&unix.O_CLOEXEC != 0
}

func octal(s string) uint64 {
	n, _ := strconv.ParseUint(s, 8, 64)
	return n
}
